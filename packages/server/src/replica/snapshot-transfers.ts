import type { MemberId, Raft } from '@conclave/raft';
import type { Runtime } from '@conclave/wire';
import type { SnapshotAck, SnapshotChunk, SnapshotReader, Snapshots } from './ports.ts';
import { SnapshotSender } from './snapshot-sender.ts';

export interface SnapshotTransfersOptions {
  readonly runtime: Runtime;
  readonly snapshots: Pick<Snapshots, 'open'>;
  readonly raft: Pick<Raft, 'step' | 'term' | 'progressOf'>;
  readonly send: (to: MemberId, chunk: SnapshotChunk) => void;
  /** Runs `work` in the replica's loop. */
  readonly later: (work: () => void) => void;
  readonly electionTicks: number;
}

/** At once: each reads the whole state, and keeps the log from its index on. */
const maxTransfers = 2;
/** Election timeouts without a word of the receiver after which a transfer is given up. A connection may break and come back meanwhile. */
const patienceTimeouts = 30;

interface Transfer {
  /** Entries above this are needed when it has arrived. */
  neededIndex: number;
  /** undefined while the state is being opened. */
  sender: SnapshotSender | undefined;
}

/** A snapshot that its receiver has, and may still be putting in place. */
interface Delivered {
  readonly neededIndex: number;
  silentTicks: number;
}

/** The snapshots that this leader brings to others (`Ready.snapshotsFor`). They end with its term. */
export class SnapshotTransfers {
  readonly #options: SnapshotTransfersOptions;
  readonly #transfers: Map<MemberId, Transfer> = new Map();
  readonly #waiting: Set<MemberId> = new Set();
  readonly #delivered: Map<MemberId, Delivered> = new Map();

  constructor(options: SnapshotTransfersOptions) {
    this.#options = options;
  }

  /**
   * The lowest index above which the log is needed by what is under way; undefined: nothing is. A large state takes its receiver a while to put in
   * place: if what follows were forgotten meanwhile, it would need another snapshot, and never come to an end.
   */
  get neededIndex(): number | undefined {
    const needed = [...this.#transfers.values(), ...this.#delivered.values()].map(({ neededIndex }) => neededIndex);
    return needed.length === 0 ? undefined : Math.min(...needed);
  }

  /** @param appliedIndex what a state that is read now holds */
  begin(members: readonly MemberId[], appliedIndex: number): void {
    for (const member of members) {
      this.#delivered.delete(member);
      if (!this.#transfers.has(member)) this.#waiting.add(member);
    }
    this.#open(appliedIndex);
  }

  #open(appliedIndex: number): void {
    const { runtime, snapshots, later } = this.#options;
    for (const member of this.#waiting) {
      if (this.#transfers.size >= maxTransfers) return;
      this.#waiting.delete(member);
      const transfer: Transfer = { neededIndex: appliedIndex, sender: undefined };
      this.#transfers.set(member, transfer);
      runtime.log.info({ member: member.toString(16) }, 'bringing a member a snapshot');
      snapshots.open().then(
        (reader) => {
          // The replica may have stopped: then nothing runs later.
          if (this.#transfers.get(member) === transfer) later(() => this.#start(member, transfer, reader));
          else reader.close();
        },
        (cause: unknown) => later(() => this.#ended(member, transfer, `it cannot be opened: ${String(cause)}`)),
      );
    }
  }

  #start(member: MemberId, transfer: Transfer, reader: SnapshotReader): void {
    const { raft, send, later, electionTicks } = this.#options;
    transfer.neededIndex = reader.snapshot.index;
    transfer.sender = new SnapshotSender({
      term: raft.term,
      reader,
      send: (chunk) => send(member, chunk),
      later,
      resendTicks: Math.ceil(electionTicks / 2),
      patienceTicks: patienceTimeouts * electionTicks,
      onEnd: (failure) => this.#ended(member, transfer, failure),
    });
    transfer.sender.start();
  }

  #ended(member: MemberId, transfer: Transfer, failure: string | undefined): void {
    if (this.#transfers.get(member) !== transfer) return;
    this.#transfers.delete(member);
    const { runtime, raft } = this.#options;
    const id = member.toString(16);
    if (failure === undefined) {
      this.#delivered.set(member, { neededIndex: transfer.neededIndex, silentTicks: 0 });
      runtime.log.info({ member: id, index: transfer.neededIndex }, 'a member has its snapshot');
    } else runtime.log.warn({ member: id, index: transfer.neededIndex, failure }, 'a snapshot did not reach its member');
    raft.step({ type: failure === undefined ? 'snapshotDelivered' : 'snapshotFailed', member });
  }

  acknowledged(from: MemberId, ack: SnapshotAck): void {
    this.#transfers.get(from)?.sender?.acknowledged(ack);
  }

  tick(appliedIndex: number): void {
    for (const member of this.#waiting) if (!this.#isNeeded(member)) this.#waiting.delete(member);
    for (const [member, transfer] of this.#transfers) {
      if (this.#isNeeded(member)) transfer.sender?.tick();
      else this.#close(member, transfer);
    }
    for (const [member, delivered] of this.#delivered) if (!this.#isAwaited(member, delivered)) this.#delivered.delete(member);
    this.#open(appliedIndex);
  }

  /** Not when it has gone on from there, or is gone. */
  #isAwaited(member: MemberId, delivered: Delivered): boolean {
    const progress = this.#options.raft.progressOf(member);
    if (progress?.state !== 'snapshot') return false;
    delivered.silentTicks = progress.isActive ? 0 : delivered.silentTicks + 1;
    return delivered.silentTicks < patienceTimeouts * this.#options.electionTicks;
  }

  /** Not when it got past the gap otherwise, or is no member any more. One that is silent may come back. */
  #isNeeded(member: MemberId): boolean {
    const progress = this.#options.raft.progressOf(member);
    return progress !== undefined && progress.state !== 'replicate';
  }

  /** The log could be kept no longer: what needs entries up to here starts over, if it is still needed. */
  giveUpBelow(index: number): void {
    for (const [member, transfer] of this.#transfers) {
      if (transfer.neededIndex >= index) continue;
      transfer.sender?.close();
      this.#ended(member, transfer, 'too much was written meanwhile');
    }
    for (const [member, { neededIndex }] of this.#delivered) if (neededIndex < index) this.#delivered.delete(member);
  }

  /** This member leads no more, or stops. */
  end(): void {
    this.#waiting.clear();
    this.#delivered.clear();
    for (const [member, transfer] of this.#transfers) this.#close(member, transfer);
  }

  #close(member: MemberId, transfer: Transfer): void {
    this.#transfers.delete(member);
    transfer.sender?.close();
  }
}
