import type { Member as WireMember } from '@conclave/protocol';
import { invalidArgument } from '../errors/conclave-error.ts';
import type { Integer } from '../kv/text.ts';

/** A member of the cluster, as the cluster knows it. */
export interface Member {
  readonly id: bigint;
  /** Empty until the member has started for the first time. */
  readonly name: string;
  /** Where the other members reach it. */
  readonly peerUrls: readonly string[];
  /** Where clients reach it; empty until it has started for the first time. */
  readonly clientUrls: readonly string[];
  /** Whether it only follows, without a vote. */
  readonly isLearner: boolean;
}

export function toMember({ id, name, peerUrls, clientUrls, isLearner }: WireMember): Member {
  return { id, name, peerUrls, clientUrls, isLearner };
}

export function toMembers({ members }: { readonly members: readonly WireMember[] }): readonly Member[] {
  return members.map(toMember);
}

/** Ids of members are hashes: all 64 bits are used, and there is no sign. */
export function toMemberId(value: Integer): bigint {
  if (typeof value === 'number' && !Number.isSafeInteger(value))
    throw invalidArgument(`a member id must be a bigint: ${value} is not exact`);
  const id = BigInt(value);
  if (BigInt.asUintN(64, id) !== id) throw invalidArgument(`a member id must be from 0 to 2^64-1, not ${value}`);
  return id;
}
