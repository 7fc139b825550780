import {
  InvariantError,
  type MemberId,
  type Message,
  type PeerMessage,
  type Raft,
  type SnapshotMeta,
  type StorageAppend,
} from '@conclave/raft';
import type { Log, Snapshots } from './ports.ts';

/** An append on its way to the disk, and what rests on it. */
interface Write {
  /** Not readonly: answers that need no write of their own are added to the last one. */
  responses: readonly Message[];
  isDone: boolean;
}

export interface AppendQueueOptions {
  readonly self: MemberId;
  readonly log: Log;
  readonly raft: Pick<Raft, 'step'>;
  readonly snapshots: Pick<Snapshots, 'restore'> | undefined;
  readonly send: (message: PeerMessage) => void;
  /** A snapshot was handed out by raft: nothing may be applied before it is in place. */
  readonly onSnapshot: () => void;
  /** It is in the place of the applied state. */
  readonly onRestored: (snapshot: SnapshotMeta) => void;
  /** Runs `work` in the replica's loop. */
  readonly later: (work: () => void) => void;
  readonly fail: (cause: unknown) => void;
}

/**
 * Raft's appends under way, in their order. What raft promises in the responses of one is released when it and all before it are durable (and their
 * snapshots in place), never earlier: a vote or an acknowledgement that a crash can take back elects two leaders or loses what a client was told is
 * safe.
 */
export class AppendQueue {
  readonly #options: AppendQueueOptions;
  readonly #underWay: Write[] = [];
  /** Snapshots handed out that are not in place yet. */
  #restoring = 0;
  #restored: Promise<void> = Promise.resolve();

  constructor(options: AppendQueueOptions) {
    this.#options = options;
  }

  /** Whether the applied state is being replaced: nothing may be read. */
  get isRestoring(): boolean {
    return this.#restoring > 0;
  }

  /** Resolves when nothing is being put in place any more. */
  get restored(): Promise<void> {
    return this.#restored;
  }

  append({ entries, hardState, snapshot, responses }: StorageAppend): void {
    if (entries.length === 0 && hardState === undefined && snapshot === undefined) {
      this.#afterAll(responses);
      return;
    }
    const { log, later } = this.#options;
    const write: Write = { responses, isDone: false };
    this.#underWay.push(write);
    if (snapshot === undefined) log.append({ entries, hardState }, () => later(() => this.#done(write)));
    else this.#appendSnapshot({ entries, hardState, snapshot }, write);
  }

  #appendSnapshot(
    { entries, hardState, snapshot }: Pick<StorageAppend, 'entries' | 'hardState'> & { readonly snapshot: SnapshotMeta },
    write: Write,
  ): void {
    const { log, snapshots, onSnapshot } = this.#options;
    if (snapshots === undefined) throw new InvariantError('raft took a snapshot where there are none');
    this.#restoring += 1;
    onSnapshot();
    const { index, term } = snapshot;
    log.append({ entries, hardState, snapshot: { index, term } }, () => this.#restore(snapshots, snapshot, write));
  }

  /** The log says by now that the snapshot is in the place of what was before it: a crash from here on is finished at the next start. */
  #restore(snapshots: Pick<Snapshots, 'restore'>, snapshot: SnapshotMeta, write: Write): void {
    const { later, fail, onRestored } = this.#options;
    const inPlace = (): void => {
      this.#restoring -= 1;
      onRestored(snapshot);
      this.#done(write);
    };
    this.#restored = this.#restored.then(() => snapshots.restore(snapshot)).then(() => later(inPlace), fail);
  }

  /** Answers that need no write of their own may rest on one that is under way. */
  #afterAll(responses: readonly Message[]): void {
    const last = this.#underWay.at(-1);
    if (last === undefined) this.#release(responses);
    else last.responses = [...last.responses, ...responses];
  }

  #done(write: Write): void {
    write.isDone = true;
    while (this.#underWay[0]?.isDone === true) this.#release(this.#underWay.shift()!.responses);
  }

  #release(responses: readonly Message[]): void {
    const { self, raft, send } = this.#options;
    for (const response of responses) {
      if ('to' in response && response.to !== self) send(response);
      else raft.step(response);
    }
  }
}
