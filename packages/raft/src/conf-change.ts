import { invariant } from './invariant.ts';
import type { ConfChange, ConfState, MemberId } from './types.ts';

/**
 * What an entry of type `confChange` holds:
 *
 * ```
 * 0  u8   format version, 1
 * 1  u8   1 addVoter, 2 addLearner, 3 remove, 4 update
 * 2  u64  member, big endian
 * 10 ..   the host's context
 * ```
 */
const types = ['addVoter', 'addLearner', 'remove', 'update'] as const satisfies readonly ConfChange['type'][];
const formatVersion = 1;
const headerBytes = 10;

export function encodeConfChange(change: ConfChange): Uint8Array {
  const bytes = new Uint8Array(headerBytes + change.context.length);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, formatVersion);
  view.setUint8(1, types.indexOf(change.type) + 1);
  view.setBigUint64(2, change.member);
  bytes.set(change.context, headerBytes);
  return bytes;
}

/** @throws InvariantError for bytes that a newer version wrote: what they mean for the quorum cannot be guessed. */
export function decodeConfChange(bytes: Uint8Array): ConfChange {
  invariant(bytes.length >= headerBytes, () => `a membership change of ${bytes.length} bytes is shorter than its header`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  invariant(view.getUint8(0) === formatVersion, () => `a membership change has format version ${view.getUint8(0)}`);
  const type = types[view.getUint8(1) - 1];
  invariant(type !== undefined, () => `a membership change has type ${view.getUint8(1)}`);
  return { type, member: view.getBigUint64(2), context: bytes.subarray(headerBytes) };
}

/** The configuration after the change. What is already so stays so: adding a voter twice is no change. */
export function changedConfState(conf: ConfState, change: ConfChange): ConfState {
  const without = (members: readonly MemberId[]): MemberId[] => members.filter((member) => member !== change.member);
  const { voters, learners } = conf;
  switch (change.type) {
    case 'addVoter':
      return voters.includes(change.member) ? conf : { voters: [...voters, change.member], learners: without(learners) };
    case 'addLearner':
      // A voter is never demoted this way: it would shrink the quorum as a side effect of a repeated request.
      return voters.includes(change.member) || learners.includes(change.member) ? conf : { voters, learners: [...learners, change.member] };
    case 'remove':
      return { voters: without(voters), learners: without(learners) };
    case 'update':
      return conf;
  }
}
