import { StatusCode } from '@conclave/protocol';
import { StatusError } from '@conclave/wire';
import type { Applied } from '../apply/apply.ts';
import type { MembershipKind, RequestKind } from '../apply/entry.ts';
import type { MembershipChange } from '../replica/options.ts';
import { outcomeTrailer } from '../replica/refusal.ts';
import type { ServedMember } from './member.ts';

type ResponseTo<K extends RequestKind> = Extract<Applied, { readonly kind: K }>['response'];

/**
 * Puts a request through the log and gives its response, whose header still has nothing but the revision. A refusal at apply is certain: where
 * its status alone would leave the outcome open, the trailer says so.
 */
export async function propose<K extends RequestKind>(
  member: ServedMember,
  kind: K,
  body: Uint8Array,
  deadline: number,
): Promise<ResponseTo<K>> {
  return responseOf(kind, await member.replica.propose(kind, body, { deadline }));
}

/** {@link propose} for what changes the members. */
export async function proposeMembership<K extends MembershipKind>(
  member: ServedMember,
  change: MembershipChange,
  kind: K,
  body: Uint8Array,
  deadline: number,
): Promise<ResponseTo<K>> {
  return responseOf(kind, await member.replica.proposeMembership(change, kind, body, { deadline }));
}

function responseOf<K extends RequestKind>(kind: K, applied: Applied): ResponseTo<K> {
  if (applied.kind === 'failed') throw certain(applied.error);
  if (applied.kind !== kind) throw new Error(`a ${kind} was answered as a ${applied.kind}`);
  // The compiler does not follow the kind into the response.
  return applied.response as ResponseTo<K>;
}

function certain(error: StatusError): StatusError {
  if (error.code !== StatusCode.UNAVAILABLE) return error;
  return new StatusError(error.code, error.message, { ...error.trailers, [outcomeTrailer]: 'not-applied' });
}

/**
 * Runs a read when everything that was acknowledged before this call is applied here. A member that knows so at once answers at once: a read is
 * too short for the price of a promise.
 */
export function afterBarrier<T>(member: ServedMember, read: () => T | Promise<T>): T | Promise<T> {
  let result: T | Promise<T> | undefined;
  let settle: ((barrier: Promise<T> | T) => void) | undefined;
  let isDone = false;
  member.replica.readBarrier((error) => {
    isDone = true;
    result = error === undefined ? attempt(read) : Promise.reject(error);
    settle?.(result);
  });
  if (isDone) return result as T | Promise<T>;
  return new Promise<T>((resolve) => {
    settle = resolve;
  });
}

function attempt<T>(read: () => T | Promise<T>): T | Promise<T> {
  try {
    return read();
  } catch (error) {
    return Promise.reject(error);
  }
}
