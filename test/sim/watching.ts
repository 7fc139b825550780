import { allKeys, isConclaveError, prefix } from '@conclave/sdk';
import type { OpenWatch, WatchEvent as RecordedEvent, KeyValue as RecordedKeyValue } from '@conclave/testkit';
import type { ClientProcess } from './client.ts';
import { isTrouble } from './client.ts';

/**
 * The watches of one client, as the SDK gives them: they go on over broken streams and changed members. Written down event by event, beside the messages
 * of the wire beneath them.
 */
export class Watching {
  readonly #process: ClientProcess;
  /** What closes each, and its record. */
  readonly #open = new Map<() => void, OpenWatch>();
  #isStopped = false;

  constructor(process: ClientProcess) {
    this.#process = process;
  }

  /** The first client watches everything from the beginning; others what they like, now and then something else. */
  start(): void {
    const { number, random } = this.#process;
    if (number === 1) this.#watchAll(1);
    else if (random.chance(0.8)) this.#watchSome();
  }

  stop(): void {
    this.#isStopped = true;
    for (const close of this.#open.keys()) close();
  }

  /** The process is dead: nobody is there to be told anything. */
  died(): void {
    const time = this.#process.world.time.monotonic();
    for (const recorded of this.#open.values()) recorded.message({ type: 'closed', time });
    this.#open.clear();
  }

  #watchAll(startRevision: number): void {
    this.#watch(
      '\0',
      '\0',
      { startRevision, prevKv: true },
      (compactRevision) => this.#watchAll(compactRevision),
      Number.POSITIVE_INFINITY,
    );
  }

  #watchSome(): void {
    const { random } = this.#process;
    const options = {
      ...(random.chance(0.5) && { prevKv: true }),
      ...(random.chance(0.3) && { ignore: random.pick(['put', 'delete'] as const) }),
      ...(random.chance(0.5) && { progressNotify: true }),
    };
    const again = (): void => this.#watchSome();
    this.#watch('k/', 'k0', options, again, 1_000 + random.below(20_000));
  }

  #watch(
    key: string,
    end: string,
    options: {
      readonly startRevision?: number;
      readonly prevKv?: boolean;
      readonly ignore?: 'put' | 'delete';
      readonly progressNotify?: boolean;
    },
    again: (compactRevision: number) => void,
    forMs: number,
  ): void {
    if (this.#isStopped) return;
    const { client, world, number, runtime, isAlive, name } = this.#process;
    const now = (): number => world.time.monotonic();
    const recorded = world.recorder.watch(number, now(), { key, end, ...options }, { granularity: 'event' });
    let isOpen = true;
    const close = (): void => {
      if (!isOpen) return;
      isOpen = false;
      this.#open.delete(close);
      timer?.cancel();
      recorded.message({ type: 'closed', time: now() });
      subscription.unsubscribe();
    };
    const subscription = client
      .watch(key === '\0' ? allKeys() : prefix(key), { ...options, progressNotify: options.progressNotify ?? false })
      .subscribe({
        next: (emission) => {
          if (!isOpen || !isAlive()) return;
          if (emission.type === 'progress') recorded.message({ type: 'progress', time: now(), revision: Number(emission.revision) });
          else recorded.message({ type: 'events', time: now(), revision: Number(emission.revision), events: [eventOf(emission)] });
        },
        error: (error: unknown) => {
          if (!isOpen || !isAlive()) return;
          close();
          if (isConclaveError(error, 'compacted')) again(Number(error.details?.compactRevision ?? 1n));
          else if (!isTrouble(error) && !isConclaveError(error, 'client-closed'))
            world.findings.add('watch-error', `${name}: ${String(error)}`);
          else runtime.timer(100, () => again(options.startRevision ?? 1));
        },
        complete: close,
      });
    const timer = Number.isFinite(forMs)
      ? runtime.timer(forMs, () => {
          close();
          again(0);
        })
      : undefined;
    this.#open.set(close, recorded);
  }
}

interface SdkKeyValue {
  readonly keyBytes: Uint8Array;
  readonly valueBytes: Uint8Array;
  readonly createRevision: bigint;
  readonly modRevision: bigint;
  readonly version: bigint;
  readonly lease: bigint;
}

function eventOf(event: {
  readonly type: 'put' | 'delete';
  readonly kv: SdkKeyValue;
  readonly prevKv: SdkKeyValue | undefined;
}): RecordedEvent {
  return { type: event.type, kv: keyValueOf(event.kv), ...(event.prevKv !== undefined && { prevKv: keyValueOf(event.prevKv) }) };
}

function keyValueOf(kv: SdkKeyValue): RecordedKeyValue {
  return {
    key: Buffer.from(kv.keyBytes).toString('latin1'),
    value: Buffer.from(kv.valueBytes).toString('latin1'),
    createRevision: Number(kv.createRevision),
    modRevision: Number(kv.modRevision),
    version: Number(kv.version),
    ...(kv.lease !== 0n && { lease: kv.lease.toString() }),
  };
}
