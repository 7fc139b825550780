import type { Namespace } from '@conclave/sdk';
import { type ContendOptions, contend, contendOnce } from '../contention/contend.ts';
import { Held } from '../contention/held.ts';
import { lockKind, recipeError } from '../contention/kind.ts';

export interface LockOptions extends ContendOptions {}

/**
 * A lock that is held, until it is released or lost.
 *
 * @example
 * ```ts
 * const held = await lock(client, 'jobs/nightly');
 * try {
 *   held.assertHeld(); // looks at the clock
 *   await client.txn().if(held.guard).then(put('report', 'done')).commit();
 * } finally {
 *   await held.release();
 * }
 * ```
 */
export class Lock extends Held {
  /**
   * Gives the lock back. Idempotent. When it rejects, the release is in doubt; the lock is free at the latest when its lease ends.
   *
   * @throws ConclaveError `unavailable`, `deadline-exceeded`
   */
  release(): Promise<void> {
    return this.giveBack();
  }
}

/**
 * Takes the lock `name`, waiting for its turn: first come, first served, in the order in which the requests reached the store. Contends with
 * `etcdctl lock` and everything built on etcd's Go mutex.
 *
 * A lock over a network tells who should act; it cannot stop a process that does not know yet that it lost. Pass `held.signal` to what you
 * do, `held.token` to what you do it to, or put `held.guard` into the transaction that does it.
 *
 * With a body the lock is held while the body runs and released when it has ended, whatever it does. If the lock was lost meanwhile the call
 * rejects with `lock-lost`, even if the body came to an end.
 *
 * @throws ConclaveError `lock-timeout`, `cancelled`, `lock-lost`, `lease-in-use`, `unavailable`, `deadline-exceeded`
 * @example
 * ```ts
 * await using held = await lock(client, 'jobs/nightly');
 * await fetch(storage, { signal: held.signal, headers: { 'x-fence': String(held.token) } });
 * ```
 */
export function lock(client: Namespace, name: string, options?: LockOptions): Promise<Lock>;
export function lock<Result>(client: Namespace, name: string, options: LockOptions, body: (held: Lock) => Promise<Result>): Promise<Result>;
export async function lock<Result>(
  client: Namespace,
  name: string,
  options: LockOptions = {},
  body?: (held: Lock) => Promise<Result>,
): Promise<Lock | Result> {
  const { place, revision } = await contend(client, lockKind, name, '', options);
  const held = new Lock(place, revision);
  if (body === undefined) return held;
  try {
    const result = await body(held);
    if (!held.isHeld && held.signal.reason?.code === lockKind.lost)
      throw recipeError('lock-lost', `lock ${name} was lost while the body ran`, held.signal.reason, 'unknown');
    return result;
  } finally {
    await held[Symbol.asyncDispose]();
  }
}

/**
 * Takes the lock `name` if nobody holds it or waits for it; undefined if somebody does.
 *
 * @throws ConclaveError `cancelled`, `unavailable`, `deadline-exceeded`
 * @example
 * ```ts
 * const held = await tryLock(client, 'jobs/nightly');
 * if (held === undefined) return; // somebody else is at it
 * ```
 */
export async function tryLock(client: Namespace, name: string, options: Omit<LockOptions, 'timeoutMs'> = {}): Promise<Lock | undefined> {
  const won = await contendOnce(client, lockKind, name, options);
  return won === undefined ? undefined : new Lock(won.place, won.revision);
}
