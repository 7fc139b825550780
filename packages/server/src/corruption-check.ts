import { AlarmRequest, AlarmRequest_AlarmAction, AlarmType, HashKVRequest, HashKVResponse } from '@conclave/protocol';
import { type Runtime, StatusError, type Timer } from '@conclave/wire';
import { CallSlicer } from './api/call-slicer.ts';
import type { Applied, Applier } from './apply/apply.ts';
import type { MemberTable } from './membership/member-table.ts';
import type { Mvcc } from './mvcc/mvcc.ts';
import type { Replica } from './replica/replica.ts';

export interface CorruptionCheckOptions {
  readonly runtime: Runtime;
  readonly memberId: bigint;
  readonly members: Pick<MemberTable, 'list'>;
  readonly mvcc: Pick<Mvcc, 'revision' | 'hashKv'>;
  readonly applier: Pick<Applier, 'alarms'>;
  readonly replica: Pick<Replica<Applied>, 'isLeader' | 'propose' | 'call' | 'onCall'>;
  /** Milliseconds between comparisons; 0: none. */
  readonly intervalMs: number;
}

/** What a member's data add up to at a revision. Told for the same revision and compaction, two members must agree. */
interface Sum {
  readonly hash: number;
  readonly compactRevision: number;
}

/**
 * Compares what the members hold. The leader asks for everybody's hash at one revision, and raises the alarm CORRUPT for those that differ from the
 * majority; from that entry on the cluster takes no more writes until an operator has looked. A member that does not answer, or has not got to
 * that revision, proves nothing: neither that it is sound nor that it is not.
 */
export class CorruptionCheck {
  readonly #options: CorruptionCheckOptions;
  #timer: Timer | undefined;
  #isStopped = false;

  constructor(options: CorruptionCheckOptions) {
    this.#options = options;
    options.replica.onCall('hashKv', async (body) => HashKVResponse.encode(await this.#sum(HashKVRequest.decode(body).revision)));
    if (options.intervalMs > 0) this.#arm();
  }

  stop(): void {
    this.#isStopped = true;
    this.#timer?.cancel();
  }

  #arm(): void {
    if (this.#isStopped) return;
    const { runtime, replica, intervalMs } = this.#options;
    this.#timer = runtime.timer(
      intervalMs,
      () => {
        if (!replica.isLeader) this.#arm();
        else
          void this.compare()
            .catch((error: unknown) => runtime.log.warn({ error: String(error) }, 'the members could not be compared'))
            .finally(() => this.#arm());
      },
      { background: true },
    );
  }

  /** Compares all members that answer with each other, and raises the alarm where they differ. Gives the members it was raised for. */
  async compare(): Promise<readonly bigint[]> {
    const sums = await this.#ask();
    const suspects = suspectsAmong(sums, this.#options.members.list().length);
    for (const memberId of suspects) await this.#alarm(memberId);
    return suspects;
  }

  /** Before a member serves anybody. @throws Error when another holds something else at the revision where this one is */
  async checkBeforeServing(): Promise<void> {
    const { memberId } = this.#options;
    const sums = await this.#ask();
    const own = sums.get(memberId);
    for (const [peer, sum] of sums) {
      if (own === undefined || areEqual(own, sum)) continue;
      throw new InconsistentMemberError(`member ${memberId.toString(16)} found data inconsistency with peer ${peer.toString(16)}`);
    }
  }

  async #ask(): Promise<ReadonlyMap<bigint, Sum>> {
    const { members, memberId, mvcc, runtime } = this.#options;
    const { revision } = mvcc;
    const own = await this.#sum(revision);
    const sums = new Map<bigint, Sum>([[memberId, own]]);
    const others = members.list().filter(({ id }) => id !== memberId);
    await Promise.all(
      others.map(async ({ id }) => {
        try {
          const sum = HashKVResponse.decode(await this.#options.replica.call(id, 'hashKv', HashKVRequest.encode({ revision })));
          // Another compaction in between makes other sums of the same data.
          if (sum.compactRevision === own.compactRevision) sums.set(id, sum);
        } catch (error) {
          if (!(error instanceof StatusError)) throw error;
          runtime.log.debug({ member: id.toString(16), error: error.message }, 'a member was not compared');
        }
      }),
    );
    return sums;
  }

  #sum(revision: number): Promise<Pick<HashKVResponse, 'hash' | 'compactRevision' | 'hashRevision'>> {
    return this.#options.mvcc.hashKv(revision, new CallSlicer(this.#options.runtime, { isCancelled: this.#isStopped }));
  }

  async #alarm(memberId: bigint): Promise<void> {
    const { runtime, replica, applier } = this.#options;
    if (applier.alarms.list(AlarmType.CORRUPT).some((alarm) => alarm.memberId === memberId)) return;
    runtime.log.error({ member: memberId.toString(16) }, 'members hold different data: raising the alarm CORRUPT');
    const { ACTIVATE } = AlarmRequest_AlarmAction;
    await replica.propose('alarm', AlarmRequest.encode({ action: ACTIVATE, memberId, alarm: AlarmType.CORRUPT }));
  }
}

/** The stored data of members differ: this one must not serve. */
class InconsistentMemberError extends Error {
  readonly code = 'state-corrupt';

  constructor(message: string) {
    super(message);
    this.name = 'InconsistentMemberError';
  }
}

/** Those that differ from what a majority of all members holds; without such a majority, member 0: somebody. */
function suspectsAmong(sums: ReadonlyMap<bigint, Sum>, size: number): bigint[] {
  const answered = [...sums];
  const agreeing = (sum: Sum): number => answered.filter(([, other]) => areEqual(sum, other)).length;
  if (answered.every(([, sum]) => agreeing(sum) === answered.length)) return [];
  const hasMajority = answered.some(([, sum]) => agreeing(sum) > size / 2);
  return hasMajority ? answered.filter(([, sum]) => agreeing(sum) <= size / 2).map(([id]) => id) : [0n];
}

function areEqual(a: Sum, b: Sum): boolean {
  return a.hash === b.hash && a.compactRevision === b.compactRevision;
}
