import { type MemberId, type MemberProgress, noMember, type Raft } from '@conclave/raft';
import type { Runtime } from '@conclave/wire';
import { refusal } from './refusal.ts';

export interface LeadershipTransferOptions {
  readonly runtime: Runtime;
  readonly self: MemberId;
  readonly raft: Pick<Raft, 'isLeader' | 'leader' | 'transferee' | 'transferLeadership' | 'confState' | 'status'>;
  readonly timeoutMs: number;
}

interface Wish {
  readonly target: MemberId;
  readonly expiresAt: number;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

/** Handing leadership over on request (thesis section 3.10). */
export class LeadershipTransfer {
  readonly #options: LeadershipTransferOptions;
  #wishes: Wish[] = [];

  constructor(options: LeadershipTransferOptions) {
    this.#options = options;
  }

  /** Resolves once `target` leads. In etcd's words: a transfer that raft gave up is told at once, and not only when the time is over. */
  to(target: MemberId): Promise<void> {
    const { runtime, self, raft, timeoutMs } = this.#options;
    if (!raft.isLeader) return Promise.reject(refusal('not-leader'));
    if (!raft.confState.voters.includes(target)) return Promise.reject(refusal('bad-leader-transferee'));
    if (target === self) return Promise.resolve();
    runtime.log.info({ target: target.toString(16) }, 'handing over leadership');
    raft.transferLeadership(target);
    return new Promise((resolve, reject) => {
      this.#wishes.push({ target, expiresAt: runtime.monotonic() + timeoutMs, resolve, reject });
    });
  }

  /** The voter that is there and lags least, for a leader that wants to go. Just after raft has counted its quorum, nobody is there to it. */
  get bestTarget(): MemberId | undefined {
    const { progress, confState } = this.#options.raft.status();
    const rank = ({ isActive, matchIndex }: MemberProgress): number => (isActive ? matchIndex : matchIndex - Number.MAX_SAFE_INTEGER);
    return progress
      .filter(({ member, state }) => state === 'replicate' && confState.voters.includes(member))
      .reduce<MemberProgress | undefined>((best, other) => (best && rank(best) >= rank(other) ? best : other), undefined)?.member;
  }

  /** The leader may be another one, or time has passed. */
  look(): void {
    if (this.#wishes.length === 0) return;
    const { runtime, raft } = this.#options;
    const now = runtime.monotonic();
    this.#wishes = this.#wishes.filter((wish) => {
      const { target, expiresAt, resolve, reject } = wish;
      const isUnderWay = raft.isLeader ? raft.transferee === target : raft.leader === noMember;
      if (raft.leader === target) resolve();
      else if (!isUnderWay || expiresAt <= now) reject(refusal('leader-transfer-timeout'));
      else return true;
      return false;
    });
  }

  abandon(): void {
    for (const { reject } of this.#wishes.splice(0)) reject(refusal('server-stopped'));
  }
}
