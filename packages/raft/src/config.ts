import { invariant } from './invariant.ts';
import type { LogPosition } from './log.ts';
import { type ConfState, type Entry, type HardState, type MemberId, noMember } from './types.ts';

/** What a member knows when it starts. For the first start of a new cluster: nothing but `confState`. */
export interface InitialState {
  /** The last one made durable; undefined when there is none. */
  readonly hardState: HardState | undefined;
  /** The configuration as of `appliedIndex`. Empty for a member that is to join: it follows whoever leads, and learns it from the log. */
  readonly confState: ConfState;
  /** The position before `entries[0]`: {index: 0, term: 0}, or one whose effect the state machine holds. */
  readonly compacted: LogPosition;
  /** Consecutive, and durable: bytes which a restart merely found in a page cache are not. */
  readonly entries: readonly Entry[];
  /** What the state machine holds. */
  readonly appliedIndex: number;
}

export interface RaftConfig {
  /** This member. Never {@link noMember}. */
  readonly id: MemberId;
  /**
   * How many times this member has started on its data, this start included. It tells what the member asks of its leader in this life from
   * what it asked in an earlier one: with a number used before, an old answer could be taken for a new one.
   */
  readonly incarnation: number;
  /** A follower that hears from no leader for this many ticks, up to twice as many by chance, campaigns. Above `heartbeatTicks`. */
  readonly electionTimeoutTicks: number;
  /** Ticks between a leader's heartbeats. At least 1. */
  readonly heartbeatTicks: number;
  /** Ask before campaigning, so that a member which was cut off does not depose a working leader by its return (thesis section 9.6). */
  readonly preVote: boolean;
  /** A leader that hears from no quorum for an election timeout steps down (thesis section 6.2), and is held on to until then. */
  readonly checkQuorum: boolean;
  /** Proposals are dropped while this many bytes of data are appended and not committed. One proposal of any size is always let in. */
  readonly maxUncommittedBytes: number;
  /** Data of one append, to storage or to a member. An entry above it travels alone. */
  readonly maxEntriesPerAppendBytes: number;
  /** Appends on their way to one member and not answered: in number, and in bytes of data (one of any size is always let go). */
  readonly maxInflightAppends: number;
  readonly maxInflightBytes: number;
  /** The only chance in here: uniform in [0, 1), drawn when an election timeout is chosen. */
  readonly electionTimeoutJitter: () => number;
  readonly initial: InitialState;
}

export function checkConfig(config: RaftConfig): void {
  const counts = [
    'incarnation',
    'electionTimeoutTicks',
    'heartbeatTicks',
    'maxUncommittedBytes',
    'maxEntriesPerAppendBytes',
    'maxInflightAppends',
    'maxInflightBytes',
  ] as const;
  invariant(config.id !== noMember, () => 'member id 0 means no member');
  for (const name of counts) invariant(Number.isSafeInteger(config[name]) && config[name] >= 1, () => `${name} is ${config[name]}`);
  const { heartbeatTicks, electionTimeoutTicks } = config;
  invariant(
    heartbeatTicks < electionTimeoutTicks,
    () => `${heartbeatTicks} heartbeatTicks do not fit below ${electionTimeoutTicks} electionTimeoutTicks`,
  );
}
