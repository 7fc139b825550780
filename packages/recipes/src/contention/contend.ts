import {
  ConclaveError,
  get,
  isConclaveError,
  type KeyValue,
  key,
  type Lease,
  type ListOperation,
  list,
  type Namespace,
  prefix,
  put,
} from '@conclave/sdk';
import { type Kind, recipeError } from './kind.ts';
import { guardFailed, leave, type Place, writeTo } from './place.ts';
import { isTransient, pauseMs, Scope } from './scope.ts';
import { claim, claimToken, disclaim, isClaimed } from './shared-lease.ts';

/** What every contender may choose. */
export interface ContendOptions {
  /**
   * How long the place outlives its process, in whole seconds, from 1 to 9,000,000,000. Shorter means a faster take-over after a crash, longer
   * more patience with pauses. A server raises what is too short for it (etcd: below 2). Default: 10. Not with `lease`.
   */
  readonly ttlSeconds?: number | undefined;
  /**
   * Stand on this lease instead of one of its own. It saves two round trips, and ties the place to whatever else the lease holds. A lease has
   * one place in a queue: a second attempt on the same name rejects with `lease-in-use`. With the lease of a session that was taken over from
   * another process, the place that it had there is gone on with: the same token, without leaving the queue. Default: a lease is granted, and revoked at the end.
   */
  readonly lease?: Lease | undefined;
  /** Gives up waiting when aborted: rejects with `cancelled` and leaves nothing behind. Default: none. */
  readonly signal?: AbortSignal | undefined;
  /** How long to wait for the place, in milliseconds, 0 or more. Default: as long as it takes. */
  readonly timeoutMs?: number | undefined;
}

const ttlSecondsDefault = 10;
/** How long a contender that gives up waits for its traces to be gone before it says so; they go anyway, at the latest with the lease. */
const leaveMsMax = 1_000;

/** A place at the head of its queue, and the revision at which it was seen there. */
export interface Won {
  readonly place: Place;
  readonly revision: bigint;
}

/**
 * Queues under `<name>/` and waits to be the oldest there. The layout is that of etcd's own Go packages, so `etcdctl lock`, `etcdctl elect` and
 * every client built on those contend for the same place: one key a contender, named after its lease, ordered by create revision.
 */
export async function contend(
  client: Namespace,
  kind: Kind,
  name: string,
  value: string | Uint8Array,
  options: ContendOptions,
): Promise<Won> {
  const { timeoutMs } = options;
  if (timeoutMs !== undefined && !(timeoutMs >= 0)) throw invalidArgument(`timeoutMs must be 0 or more, not ${timeoutMs}`);
  const scope = new Scope(client, kind, options.signal, timeoutMs);
  try {
    const contender = await enter(client, kind, name, value, options, scope, false);
    if (contender === undefined) throw new Error('a contender that queues has a place');
    return contender;
  } finally {
    scope.close();
  }
}

/** Takes the place only if nobody has it or waits for it. */
export async function contendOnce(
  client: Namespace,
  kind: Kind,
  name: string,
  options: Omit<ContendOptions, 'timeoutMs'>,
): Promise<Won | undefined> {
  const scope = new Scope(client, kind, options.signal, undefined);
  try {
    return await enter(client, kind, name, '', options, scope, true);
  } finally {
    scope.close();
  }
}

async function enter(
  client: Namespace,
  kind: Kind,
  name: string,
  value: string | Uint8Array,
  options: ContendOptions,
  scope: Scope,
  once: boolean,
): Promise<Won | undefined> {
  if (name === '') throw invalidArgument(`a ${kind.noun} needs a name`);
  if (options.lease !== undefined && options.ttlSeconds !== undefined)
    throw invalidArgument('ttlSeconds is that of the lease, when one is given');
  const ttlSeconds = options.ttlSeconds ?? ttlSecondsDefault;
  const lease = options.lease ?? (await scope.run((signal) => client.lease.grant({ ttlSeconds, signal })));
  const own = `${name}/${lease.id.toString(16)}`;
  const ownsLease = options.lease === undefined;
  if (!ownsLease && !claim(lease, client, name)) throw leaseInUse(lease, name);
  let place: Place = { client, kind, name, key: own, lease, ownsLease, token: 0n };
  let sent: Promise<Entry | undefined> = Promise.resolve(undefined);
  try {
    scope.standOn(lease);
    const entry = await persist(client, scope, (_, isRepeat) => {
      // Not recalled when the scope ends: recalled, it could still reach the server, after what is to undo it.
      const entering = once ? enterIfEmpty(place, isRepeat) : enqueue(place, value, isRepeat);
      sent = entering;
      return scope.race(entering);
    });
    if (entry === undefined) {
      // The answer is known; that the traces may stay until the lease ends does not change it.
      if (ownsLease) await leaveSoon(place, sent);
      else disclaim(place);
      return undefined;
    }
    if (!ownsLease && !claimToken(lease, entry.token)) throw leaseInUse(lease, name);
    place = { ...place, token: entry.token };
    const revision = entry.isFirst ? entry.revision : await waitForTurn(place, scope);
    return { place, revision };
  } catch (error) {
    if (ownsLease || !isConclaveError(error, 'lease-in-use')) await leaveSoon(place, sent);
    if (!ownsLease) disclaim(place);
    throw error;
  }
}

interface Entry {
  readonly token: bigint;
  readonly isFirst: boolean;
  readonly revision: bigint;
}

/**
 * Writes the contender's key, or finds it written. The transaction may be repeated when its answer is lost: the key carries the lease's id, so
 * what a repeat finds there is its own.
 */
async function enqueue(place: Place, value: string | Uint8Array, isRepeat: boolean): Promise<Entry> {
  const { client, name, key: own, lease } = place;
  const oldest = oldestUnder(name);
  const result = await client
    .txn()
    .if(...lease.guards, key(own).missing())
    .then(put(own, value, { lease }), oldest)
    .else(get(own), oldest)
    .commit();
  const { revision } = result;
  const isFirst = result[1].kvs[0]?.key === own;
  if (result.succeeded) return { token: revision, isFirst, revision };
  const [existing] = result;
  if (existing === undefined) throw guardFailed(lease);
  // A lease that was taken over brings the places of the process before; within this one `claim` lets nobody take a place twice.
  if (!(isRepeat || lease.isTakenOver)) throw leaseInUse(lease, name);
  const token = existing.createRevision;
  // That it is gone in between is noticed by whoever waits in it, or holds it.
  if (!isSame(existing.valueBytes, value)) await writeTo({ ...place, token }, put(own, value, { lease }));
  return { token, isFirst, revision };
}

function isSame(stored: Uint8Array, value: string | Uint8Array): boolean {
  return Buffer.compare(stored, Buffer.from(value)) === 0;
}

function leaseInUse(lease: Lease, name: string): ConclaveError {
  return recipeError('lease-in-use', `lease ${lease.id.toString(16)} has a place under ${name}/ already`);
}

async function enterIfEmpty({ client, name, key: own, lease }: Place, isRepeat: boolean): Promise<Entry | undefined> {
  const nobody = key(prefix(`${name}/`)).missing();
  const result = await client
    .txn()
    .if(...lease.guards, nobody)
    .then(put(own, '', { lease }))
    .else(oldestUnder(name))
    .commit();
  const { revision } = result;
  if (result.succeeded) return { token: revision, isFirst: true, revision };
  const oldest = result.responses[0].kvs[0];
  if (oldest === undefined) throw guardFailed(lease);
  if (!(isRepeat || lease.isTakenOver) || oldest.key !== own) return undefined;
  return { token: oldest.createRevision, isFirst: true, revision };
}

/**
 * Waits until nobody older is left. Only the next older contender is watched, so that a release wakes one waiter and not all of them, and the
 * own key beside it, so that a waiter whose place is gone does not wait for nothing. Being first counts only together with the own key, read
 * in the same transaction: the lease may have ended, and another come to be first, between two reads.
 */
async function waitForTurn(place: Place, scope: Scope): Promise<bigint> {
  const { client, kind, name, key: own, token } = place;
  const ahead = list(prefix(`${name}/`), {
    maxCreateRevision: token - 1n,
    sort: { by: 'createRevision', order: 'descend' },
    limit: 1,
    keysOnly: true,
  });
  for (;;) {
    const [mine, older, revision] = await persist(client, scope, async (signal) => {
      const result = await client.txn().then(get(own), ahead).commit({ signal });
      if (!result.succeeded) throw new Error('a transaction without conditions took its other branch');
      return [result[0], result[1], result.revision] as const;
    });
    if (mine?.createRevision !== token) throw recipeError(kind.lost, `the place in the queue for ${kind.noun} ${name} is gone`);
    const next = older.kvs[0];
    if (next === undefined) return revision;
    await untilEitherIsGone(client, scope, next.key, own, revision + 1n);
  }
}

async function untilEitherIsGone(client: Namespace, scope: Scope, older: string, own: string, startRevision: bigint): Promise<void> {
  await scope.wait((resolve, reject) => {
    const onError = (error: unknown): void => {
      // What was to be watched is history now: looking again tells.
      if (isConclaveError(error, 'compacted')) resolve();
      else reject(error);
    };
    // A closed client completes its watches: looking again tells that, too, also where the lease is of another client.
    const subscriptions = [older, own].map((target) =>
      client.watch(target, { startRevision, ignore: 'put' }).subscribe({ next: resolve, error: onError, complete: resolve }),
    );
    return () => {
      for (const subscription of subscriptions) subscription.unsubscribe();
    };
  });
}

function oldestUnder(name: string): ListOperation {
  return list(prefix(`${name}/`), { sort: { by: 'createRevision', order: 'ascend' }, limit: 1, keysOnly: true });
}

/** Repeats a call that may be repeated until it is answered or the scope ends; the lease bounds it. */
async function persist<Result>(
  client: Namespace,
  scope: Scope,
  call: (signal: AbortSignal, isRepeat: boolean) => Promise<Result>,
): Promise<Result> {
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await scope.run((signal) => call(signal, attempt > 0));
    } catch (error) {
      if (scope.signal.aborted || !isTransient(error)) throw error;
      await scope.wait((resolve) => {
        const timer = client.runtime.timer(pauseMs(client, attempt), resolve);
        return () => timer.cancel();
      });
    }
  }
}

/**
 * Leaves, waiting a moment so that a caller who was rejected finds nothing left behind when the server answers. A lease of its own takes the key
 * along, written or not; on a shared lease the key has to be looked for, once it is certain that it will not be written later.
 */
async function leaveSoon(place: Place, sent: Promise<Entry | undefined>): Promise<void> {
  const { client } = place;
  const left = leaveWith(place, sent).catch((error: unknown) => {
    client.runtime.log.warn({ err: error, key: place.key }, 'a place in a queue was not given back; it ends with its lease');
  });
  let stop: (() => void) | undefined;
  const patience = new Promise<void>((resolve) => {
    const timer = client.runtime.timer(leaveMsMax, resolve);
    stop = () => timer.cancel();
  });
  await Promise.race([left, patience]);
  stop?.();
}

async function leaveWith(place: Place, sent: Promise<Entry | undefined>): Promise<void> {
  if (place.ownsLease || place.token !== 0n) return await leave(place);
  const [answer] = await Promise.allSettled([sent]);
  if (answer.status === 'fulfilled') {
    if (answer.value !== undefined) await leaveUnclaimed(place, answer.value.token);
    return;
  }
  // Turned down: what is under the key, if anything, is an earlier place of the same lease.
  if (!isTransient(answer.reason)) return;
  const own = await readUntilAnswered(place);
  if (own !== undefined) await leaveUnclaimed(place, own.createRevision);
}

async function leaveUnclaimed(place: Place, token: bigint): Promise<void> {
  if (!isClaimed(place.lease, token)) await leave({ ...place, token });
}

/** The lease is renewed for as long as its owner likes, and the key with it: asked until there is an answer, or the lease ends. */
async function readUntilAnswered({ client, kind, key: own, lease }: Place): Promise<KeyValue | undefined> {
  const scope = new Scope(client, kind, undefined, undefined);
  try {
    scope.standOn(lease);
    return await persist(client, scope, (signal) => client.get(own, { signal }));
  } finally {
    scope.close();
  }
}

function invalidArgument(message: string): ConclaveError {
  return new ConclaveError({ code: 'invalid-argument', message, outcome: 'not-applied' });
}
