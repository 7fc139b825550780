import { Cluster } from '@conclave/protocol';
import type { Engine } from '../connection/engine.ts';
import type { RequestOptions } from '../connection/procedure.ts';
import { ConclaveError } from '../errors/conclave-error.ts';
import type { Integer } from '../kv/text.ts';
import { change, read, request } from './call.ts';
import { type Member, toMember, toMemberId, toMembers } from './member.ts';

export interface MembersOptions extends RequestOptions {
  /** Take one member's word for it, which may be old, but can be had without a leader. Servers before 3.5 always do. Default: false. */
  readonly serializable?: boolean | undefined;
}

export interface MemberAdded {
  readonly member: Member;
  /** All members there are now, the new one included. */
  readonly members: readonly Member[];
}

/**
 * Who the members of the cluster are, as `client.cluster`.
 *
 * A change rejects with the outcome `unknown` when its answer was lost: look at {@link ClusterClient.members} before it is repeated.
 */
export class ClusterClient {
  readonly #engine: Engine;

  /** @internal */
  constructor(engine: Engine) {
    this.#engine = engine;
  }

  /**
   * All members, learners included.
   *
   * @throws ConclaveError `unavailable`, `deadline-exceeded`, …
   * @example
   * ```ts
   * for (const { name, clientUrls, isLearner } of await client.cluster.members()) console.log(name, clientUrls, isLearner);
   * ```
   */
  members(options?: MembersOptions): Promise<readonly Member[]> {
    return request(this.#engine, membersProcedure, { linearizable: options?.serializable !== true }, options);
  }

  /**
   * Adds a voting member. It counts for the majority at once, before it is started: adding a learner first is safer.
   *
   * @throws ConclaveError `peer-urls-exist`, `member-urls-invalid`, `not-enough-started-members`, `unhealthy-cluster`, …
   * @example
   * ```ts
   * const { member } = await client.cluster.add(['http://10.0.0.4:2380']);
   * console.log(member.id);
   * ```
   */
  add(peerUrls: readonly string[], options?: RequestOptions): Promise<MemberAdded> {
    return request(this.#engine, addProcedure, { peerUrls, isLearner: false }, options);
  }

  /**
   * Adds a member that follows without a vote, until it is promoted.
   *
   * @throws ConclaveError `too-many-learners`, `peer-urls-exist`, `member-urls-invalid`, …
   * @example
   * ```ts
   * const { member } = await client.cluster.addLearner(['http://10.0.0.4:2380']);
   * ```
   */
  addLearner(peerUrls: readonly string[], options?: RequestOptions): Promise<MemberAdded> {
    return request(this.#engine, addProcedure, { peerUrls, isLearner: true }, options);
  }

  /**
   * Makes a learner a voting member.
   *
   * @returns all members there are now
   * @throws ConclaveError `learner-not-ready` while it has not caught up with the leader, `member-not-learner`, `member-not-found`, …
   * @example
   * ```ts
   * await client.cluster.promote(member.id);
   * ```
   */
  async promote(id: Integer, options?: RequestOptions): Promise<readonly Member[]> {
    return request(this.#engine, promoteProcedure, { id: toMemberId(id) }, options);
  }

  /**
   * Tells the cluster where a member is reached by the others from now on.
   *
   * @returns all members there are now
   * @throws ConclaveError `member-not-found`, `peer-urls-exist`, `member-urls-invalid`, …
   * @example
   * ```ts
   * await client.cluster.update(member.id, ['http://10.0.0.5:2380']);
   * ```
   */
  async update(id: Integer, peerUrls: readonly string[], options?: RequestOptions): Promise<readonly Member[]> {
    return request(this.#engine, updateProcedure, { id: toMemberId(id), peerUrls }, options);
  }

  /**
   * Removes a member for good: its id is never used again.
   *
   * @returns all members there are now
   * @throws ConclaveError `member-not-found`, `not-enough-started-members`, `unhealthy-cluster`, …
   * @example
   * ```ts
   * await client.cluster.remove(member.id);
   * ```
   */
  async remove(id: Integer, options?: RequestOptions): Promise<readonly Member[]> {
    return request(this.#engine, removeProcedure, { id: toMemberId(id) }, options);
  }
}

const { memberList, memberAdd, memberPromote, memberUpdate, memberRemove } = Cluster.methods;

const membersProcedure = read(memberList, toMembers);
const promoteProcedure = change(memberPromote, toMembers);
const updateProcedure = change(memberUpdate, toMembers);
const removeProcedure = change(memberRemove, toMembers);
const addProcedure = change(memberAdd, (response): MemberAdded => {
  if (response.member === undefined) {
    throw new ConclaveError({ code: 'internal', message: 'the answer does not name the member that was added', outcome: 'applied' });
  }
  return { member: toMember(response.member), members: toMembers(response) };
});
