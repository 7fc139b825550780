import { invalidArgument } from '../errors/conclave-error.ts';

/**
 * A session on its way to another process: made by {@link Session.handOver}, taken by `client.session({ from: token })`. Plain data, to be sent
 * as JSON. Whoever has it can take the session, once.
 */
export interface SessionToken {
  /** The lease, in hexadecimal. */
  readonly lease: string;
  readonly ttlSeconds: number;
  /** The keys that the session holds, in base64url. */
  readonly keys: readonly string[];
  /** By which the store knows who may take it. */
  readonly claim: string;
}

/** What a token says. */
export interface OpenedToken {
  readonly lease: bigint;
  readonly keys: readonly Uint8Array[];
  readonly claim: string;
}

/** The parts of a token that came from outside. */
export function readToken(token: SessionToken): OpenedToken {
  const { lease, keys, claim } = token;
  if (typeof lease !== 'string' || !/^[0-9a-f]{1,16}$/.test(lease)) throw invalidArgument('the token has no lease');
  if (typeof claim !== 'string' || claim === '') throw invalidArgument('the token has no claim');
  if (!Array.isArray(keys) || !keys.every((key) => typeof key === 'string' && key !== '')) throw invalidArgument('the token has no keys');
  return { lease: BigInt(`0x${lease}`), keys: keys.map((key) => Buffer.from(key, 'base64url')), claim };
}

export function writeToken(lease: bigint, ttlSeconds: number, keys: readonly Uint8Array[], claim: string): SessionToken {
  return { lease: lease.toString(16), ttlSeconds, keys: keys.map((key) => Buffer.from(key).toString('base64url')), claim };
}
