import { drawId } from '../connection/draw-id.ts';
import type { Engine } from '../connection/engine.ts';
import type { RequestOptions } from '../connection/procedure.ts';
import { TimeLimit } from '../connection/time-limit.ts';
import { invalidArgument, isConclaveError } from '../errors/conclave-error.ts';
import type { KeyPrefix } from '../kv/key-range.ts';
import type { KeyValue } from '../kv/key-value.ts';
import { get } from '../kv/operation.ts';
import type { Lease } from '../lease/lease.ts';
import type { LeaseRegistry } from '../lease/lease-client.ts';
import type { Verbs } from '../verbs.ts';
import { persist } from './persist.ts';
import { Session } from './session.ts';
import { SessionKeeper } from './session-keeper.ts';
import { expired, type SessionMark } from './session-mark.ts';
import { type OpenedToken, readToken, type SessionToken } from './session-token.ts';

/** `deadlineMs` and `signal` are for opening it, and have no effect afterwards. */
export interface SessionOptions extends RequestOptions {
  /**
   * How long what the session holds outlives its process, in whole seconds, from 1 to 9,000,000,000. Shorter means that others learn of a crash
   * sooner, longer more patience with pauses. A server raises what is too short for it (etcd: below 2). Default: 10. Not with `from`.
   */
  readonly ttlSeconds?: number | undefined;
  /** Return at once; the session has its lease when it can be had. Default: false. Not with `from`. */
  readonly lazy?: boolean | undefined;
  /** Go on with the session that another process handed over. Default: a new one. */
  readonly from?: SessionToken | undefined;
}

const ttlSecondsDefault = 10;
/** Fewer than the operations that a transaction may have (etcd: 128). */
const keysAtOnce = 100;
/** How long whoever could not take a session over waits until it can be taken again. */
const giveBackMs = 1_000;

/** What sessions are made with. */
export interface SessionSource {
  readonly engine: Engine;
  readonly leases: LeaseRegistry;
}

export async function openSession(
  { engine, leases }: SessionSource,
  namespace: Verbs,
  prefix: KeyPrefix,
  options: SessionOptions,
): Promise<Session> {
  const { from, lazy, ttlSeconds = from === undefined ? ttlSecondsDefault : from.ttlSeconds } = options;
  if (!Number.isSafeInteger(ttlSeconds) || ttlSeconds < 1)
    throw invalidArgument(`ttlSeconds must be a whole number from 1 up, not ${ttlSeconds}`);
  if (from !== undefined && (options.ttlSeconds !== undefined || lazy === true))
    throw invalidArgument('a session that is taken over has its time to live already, and is not lazy');
  const limit = new TimeLimit(engine, options);
  const owner = drawId(engine.runtime);
  const keeper = new SessionKeeper({ engine, namespace, prefix, leases, ttlSeconds, owner });
  const session = new Session(keeper);
  try {
    if (from !== undefined) await takeOver(keeper, session, from, limit);
    else {
      keeper.start(undefined);
      if (lazy !== true) await keeper.untilLive(limit.rest());
    }
    return session;
  } catch (error) {
    await session[Symbol.asyncDispose]();
    throw error;
  }
}

async function takeOver(keeper: SessionKeeper, session: Session, from: SessionToken, limit: TimeLimit): Promise<void> {
  const { engine, leases, owner } = keeper;
  const token = readToken(from);
  const mark = keeper.markOf(token.lease);
  let lease: Lease | undefined;
  try {
    await persist(engine, limit, (rest) => mark.claim(token.claim, owner, rest));
    lease = await persist(engine, limit, (rest) => leases.takeOver(token.lease, rest));
    if (lease === undefined) throw expired(token.lease);
    await inherit(keeper, session, token, limit);
    keeper.start(lease);
    await keeper.untilLive(limit.rest());
  } catch (error) {
    // At no time do two hold it. Nor does it go on here under another lease.
    lease?.end('handed-over', 'its session could not be taken over');
    void session[Symbol.asyncDispose]();
    if (!isConclaveError(error, 'session-claimed') && !isConclaveError(error, 'session-expired')) await giveBack(keeper, mark, token.claim);
    throw error;
  }
}

/** Goes on holding the keys of the token, as they are. */
async function inherit({ engine, namespace }: SessionKeeper, session: Session, token: OpenedToken, limit: TimeLimit): Promise<void> {
  for (let at = 0; at < token.keys.length; at += keysAtOnce) {
    const keys = token.keys.slice(at, at + keysAtOnce);
    const read = (rest: RequestOptions): Promise<readonly unknown[]> =>
      namespace
        .txn()
        .then(...keys.map((key) => get(key)))
        .commit(rest);
    for (const kv of (await persist(engine, limit, read)) as readonly (KeyValue | undefined)[]) {
      if (kv?.lease === token.lease) session.inherit(kv.keyBytes, kv.valueBytes);
    }
  }
}

/** Offers what was claimed again under the same claim, so that whoever tries again with the token finds it as it was. */
async function giveBack(keeper: SessionKeeper, mark: SessionMark, claim: string): Promise<void> {
  const { engine, owner } = keeper;
  try {
    await persist(engine, new TimeLimit(engine, { deadlineMs: giveBackMs }), (rest) => mark.offer(owner, claim, rest));
  } catch (err) {
    engine.runtime.log.warn({ err }, 'a session that could not be taken over was not given back; it ends with its time');
  }
}
