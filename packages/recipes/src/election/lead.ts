import { ConclaveError, isConclaveError, type Namespace } from '@conclave/sdk';
import { electionKind } from '../contention/kind.ts';
import { isTransient, pauseMs, Scope } from '../contention/scope.ts';
import { type CampaignOptions, campaign, type Leadership } from './leadership.ts';

export interface LeadOptions extends Omit<CampaignOptions, 'timeoutMs' | 'lease'> {}

/**
 * Runs `body` whenever this process leads the election `name`, and queues again when it has ended, until `signal` is aborted; then it
 * resolves.
 *
 * The next leader is let in only after the body has ended: when `leadership.signal` aborts, by loss or because `signal` did, the body should
 * end soon. Its end is awaited, however long it takes; only the lease's own end can let another leader in before. A body that fails ends it
 * all with its error, unless the leadership was lost and the error only says so.
 *
 * @throws what the body throws; ConclaveError for what waiting cannot cure (`permission-denied`, `invalid-argument`, …)
 * @example
 * ```ts
 * await lead(client, 'scheduler', async (leadership) => {
 *   await runScheduler(leadership.signal);
 * }, { signal: shutdown.signal });
 * ```
 */
export async function lead(
  client: Namespace,
  name: string,
  body: (leadership: Leadership) => Promise<void>,
  options: LeadOptions = {},
): Promise<void> {
  const { signal } = options;
  const isStopped = (): boolean => signal?.aborted === true;
  for (let attempt = 0; !isStopped(); ) {
    let leadership: Leadership;
    try {
      leadership = await campaign(client, name, options);
    } catch (error) {
      if (isStopped() && isConclaveError(error, 'cancelled')) return;
      if (!isTransient(error) && !isConclaveError(error, electionKind.lost)) throw error;
      client.runtime.log.warn({ err: error, election: name }, 'campaigning again');
      await pause(client, attempt, signal);
      attempt += 1;
      continue;
    }
    attempt = 0;
    // What the body throws is not looked at: it may well be an error of another call, or of another election.
    await term(client, leadership, body, signal);
  }
}

/** One term: from being elected until the body has ended and the leadership is given back. */
async function term(
  client: Namespace,
  leadership: Leadership,
  body: (leadership: Leadership) => Promise<void>,
  signal: AbortSignal | undefined,
): Promise<void> {
  const onAbort = (): void => leadership.stop(stopped(leadership.name, signal?.reason));
  signal?.addEventListener('abort', onAbort);
  // It may have been aborted while the campaign was being won.
  if (signal?.aborted === true) onAbort();
  try {
    await body(leadership);
  } catch (error) {
    // A body that was told to stop may say so in its own way.
    if (leadership.isHeld) throw error;
    client.runtime.log.warn({ err: error, election: leadership.name }, 'the body ended with an error after its leadership');
  } finally {
    signal?.removeEventListener('abort', onAbort);
    await leadership[Symbol.asyncDispose]();
  }
}

async function pause(client: Namespace, attempt: number, signal: AbortSignal | undefined): Promise<void> {
  const scope = new Scope(client, electionKind, signal, undefined);
  try {
    await scope.wait((resolve) => {
      const timer = client.runtime.timer(pauseMs(client, attempt), resolve);
      return () => timer.cancel();
    });
  } catch (error) {
    if (!isConclaveError(error, 'cancelled')) throw error;
  } finally {
    scope.close();
  }
}

function stopped(name: string, reason: unknown): ConclaveError {
  return new ConclaveError({ code: 'cancelled', message: `leading ${name} was cancelled`, outcome: 'not-applied', cause: reason });
}
