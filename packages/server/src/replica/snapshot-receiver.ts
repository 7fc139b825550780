import type { MemberId, Raft } from '@conclave/raft';
import type { Runtime } from '@conclave/wire';
import type { SnapshotAck, SnapshotChunk, Snapshots, SnapshotWriter } from './ports.ts';

export interface SnapshotReceiverOptions {
  readonly runtime: Runtime;
  readonly self: MemberId;
  readonly snapshots: Pick<Snapshots, 'receive'>;
  readonly raft: Pick<Raft, 'step' | 'term' | 'leader' | 'commitIndex'>;
  readonly send: (to: MemberId, ack: SnapshotAck) => void;
  /** Runs `work` in the replica's loop; what it throws ends the member. */
  readonly later: (work: () => void) => void;
}

/** Chunks ahead of the next one that are kept, in bytes: somewhat more than a sender has under way. */
const aheadBytesMax = 4 * 1024 * 1024;

/** One reading of the leader's state, on its way in. */
interface Reception {
  readonly from: MemberId;
  readonly term: number;
  readonly id: number;
  readonly snapshot: SnapshotChunk['snapshot'];
  /** undefined until its place is ready. */
  writer: SnapshotWriter | undefined;
  /** By sequence: those not written yet. */
  readonly chunks: Map<number, SnapshotChunk>;
  chunkBytes: number;
  isBusy: boolean;
}

/**
 * The snapshot that the leader brings to this member: takes in its chunks, in whatever order and however often they come, and when it is complete,
 * verified and durable hands it to raft. What does not fit together is refused and thrown away, and the leader sends another.
 */
export class SnapshotReceiver {
  readonly #options: SnapshotReceiverOptions;
  #reception: Reception | undefined;
  /** What was confirmed last: the confirmation may be lost, and is asked for again. */
  #finished: { readonly from: MemberId; readonly ack: SnapshotAck } | undefined;

  constructor(options: SnapshotReceiverOptions) {
    this.#options = options;
  }

  received(from: MemberId, chunk: SnapshotChunk): void {
    const { raft, send } = this.#options;
    const { term, id, snapshot } = chunk;
    if (term !== raft.term || from !== raft.leader) return;
    if (this.#finished?.from === from && this.#finished.ack.id === id && this.#finished.ack.term === term) {
      send(from, this.#finished.ack);
    } else if (snapshot.index <= raft.commitIndex) {
      send(from, { kind: 'snapshotAck', term, id, next: 0, isRefused: true });
    } else {
      this.#keep(this.#receptionOf(from, chunk), chunk);
    }
  }

  #receptionOf(from: MemberId, { term, id, snapshot }: SnapshotChunk): Reception {
    const current = this.#reception;
    if (current?.from === from && current.term === term && current.id === id && current.snapshot.index === snapshot.index) return current;
    const reception: Reception = { from, term, id, snapshot, writer: undefined, chunks: new Map(), chunkBytes: 0, isBusy: false };
    this.#reception = reception;
    this.#options.runtime.log.info({ leader: from.toString(16), index: snapshot.index }, 'receiving a snapshot');
    return reception;
  }

  #keep(reception: Reception, chunk: SnapshotChunk): void {
    const { writer, chunks } = reception;
    const next = writer?.next ?? 0;
    const isNews = chunk.sequence >= next && !chunks.has(chunk.sequence);
    if (isNews && (chunk.sequence === next || reception.chunkBytes + chunk.bytes.length <= aheadBytesMax)) {
      chunks.set(chunk.sequence, chunk);
      reception.chunkBytes += chunk.bytes.length;
    }
    if (reception.isBusy) return;
    // A chunk is missing that others have overtaken, or a confirmation was lost.
    if (writer !== undefined && !chunks.has(writer.next)) this.#acknowledge(reception, writer.next);
    else this.#begin(reception);
  }

  #begin(reception: Reception): void {
    reception.isBusy = true;
    this.#write(reception).then(
      (written) => this.#options.later(() => this.#settled(reception, written)),
      (cause: unknown) => this.#options.later(() => this.#failed(reception, cause)),
    );
  }

  /** Writes what follows without a gap, and confirms each chunk as soon as it is durable. @returns how many there were */
  async #write(reception: Reception): Promise<number> {
    const { snapshots, later } = this.#options;
    reception.writer ??= await snapshots.receive(reception.snapshot, reception.id);
    const { writer } = reception;
    for (let written = 0; ; written++) {
      for (const sequence of reception.chunks.keys()) if (sequence < writer.next) this.#take(reception, sequence);
      const chunk = this.#take(reception, writer.next);
      if (chunk === undefined || !this.#isCurrent(reception)) return written;
      if (chunk.isLast) {
        await writer.finish();
        later(() => this.#install(reception, chunk.sequence + 1));
        return written;
      }
      await writer.write(chunk.bytes);
      later(() => this.#acknowledge(reception, writer.next));
    }
  }

  #take(reception: Reception, sequence: number): SnapshotChunk | undefined {
    const chunk = reception.chunks.get(sequence);
    if (chunk === undefined) return undefined;
    reception.chunks.delete(sequence);
    reception.chunkBytes -= chunk.bytes.length;
    return chunk;
  }

  #isCurrent(reception: Reception): boolean {
    return this.#reception === reception;
  }

  #settled(reception: Reception, written: number): void {
    reception.isBusy = false;
    if (!this.#isCurrent(reception)) return;
    const { writer, chunks } = reception;
    if (chunks.has(writer!.next)) this.#begin(reception);
    // There is a gap, or what came was there already.
    else if (chunks.size > 0 || written === 0) this.#acknowledge(reception, writer!.next);
  }

  #acknowledge({ from, term, id }: Reception, next: number): void {
    this.#options.send(from, { kind: 'snapshotAck', term, id, next, isRefused: false });
  }

  /** The last piece is confirmed only when raft has the snapshot: a leader that hears of it counts on it. */
  #install(reception: Reception, next: number): void {
    if (!this.#isCurrent(reception)) return;
    this.#reception = undefined;
    const { raft, self, send } = this.#options;
    const { from, term, id, snapshot } = reception;
    raft.step({ type: 'installSnapshot', from, to: self, term, snapshot });
    const isTaken = raft.commitIndex >= snapshot.index;
    const ack: SnapshotAck = { kind: 'snapshotAck', term, id, next, isRefused: !isTaken };
    this.#finished = { from, ack };
    send(from, ack);
  }

  /** A disk that fails ends the member. A snapshot that is damaged only has to be sent again. */
  #failed(reception: Reception, cause: unknown): void {
    if (!isCorruption(cause)) throw cause;
    reception.isBusy = false;
    const { runtime, send, later } = this.#options;
    const { from, term, id, snapshot, writer } = reception;
    runtime.log.error({ leader: from.toString(16), index: snapshot.index, error: String(cause) }, 'a snapshot is damaged and was refused');
    if (this.#isCurrent(reception)) this.#reception = undefined;
    const refuse = (): void => send(from, { kind: 'snapshotAck', term, id, next: 0, isRefused: true });
    writer?.abandon().then(
      () => later(refuse),
      (error: unknown) => later(() => this.#failed(reception, error)),
    );
  }

  /** The member stops. What came so far may be continued. */
  end(): void {
    this.#reception = undefined;
  }
}

function isCorruption(cause: unknown): boolean {
  return cause instanceof Error && 'code' in cause && cause.code === 'snapshot-corrupt';
}
