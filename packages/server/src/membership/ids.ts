import { createHash } from 'node:crypto';

/**
 * Ids as etcd computes them, so that its tools and its data agree with ours. They are computed once, when a member is made, and then kept: a changed
 * flag changes no id.
 */

/** First 8 bytes, big endian, of SHA-1 over the sorted peer URLs, joined, followed by the cluster's token. */
export function memberIdOf(peerUrls: readonly string[], clusterToken: string): bigint {
  return firstBytes([...peerUrls].sort().join('') + clusterToken);
}

/**
 * The id of a member that is added while the cluster runs: instead of a token, etcd hashes the cluster's name, which is empty there, and the time in
 * whole seconds since 1970, so that a member with the same URLs gets another id later.
 */
export function addedMemberIdOf(peerUrls: readonly string[], unixSeconds: number): bigint {
  return memberIdOf(peerUrls, unixSeconds.toString());
}

/** First 8 bytes, big endian, of SHA-1 over the member ids in ascending order, 8 bytes big endian each. */
export function clusterIdOf(memberIds: readonly bigint[]): bigint {
  const bytes = Buffer.alloc(8 * memberIds.length);
  const ascending = [...memberIds].sort((a, b) => (a < b ? -1 : 1));
  for (const [at, id] of ascending.entries()) bytes.writeBigUInt64BE(id, 8 * at);
  return firstBytes(bytes);
}

function firstBytes(data: string | Uint8Array): bigint {
  return createHash('sha1').update(data).digest().readBigUInt64BE(0);
}
