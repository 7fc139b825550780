import type { SnapshotAck, SnapshotChunk, SnapshotReader } from './ports.ts';

export interface SnapshotSenderOptions {
  readonly term: number;
  readonly reader: SnapshotReader;
  readonly send: (chunk: SnapshotChunk) => void;
  /** Runs `work` in the replica's loop. */
  readonly later: (work: () => void) => void;
  /** Ticks without progress after which what was sent is taken for lost. */
  readonly resendTicks: number;
  /** Ticks without progress after which the transfer is given up. */
  readonly patienceTicks: number;
  /** Told once. `undefined`: the receiver confirmed all of it; otherwise why that is not to be expected any more. */
  readonly onEnd: (failure: string | undefined) => void;
}

/** Bytes on their way and not confirmed. One chunk of any size is always let go. */
const windowBytes = 2 * 1024 * 1024;
/** An answer from further back may be a late one. So many in a row, each to another question, are not. */
const relapsesMax = 3;

/**
 * One snapshot on its way to one member. Chunks go out as far as the window allows and are kept until they are confirmed: reading the state does not
 * go back. What is lost is sent again: when the receiver says that it misses a chunk others have overtaken, and when it says nothing for a while.
 * A connection that broke is just that: the next word of the receiver tells where to go on.
 */
export class SnapshotSender {
  readonly #options: SnapshotSenderOptions;
  /** Read and not confirmed; the first has sequence `#first`. */
  readonly #chunks: SnapshotChunk[] = [];
  #first = 0;
  #bytes = 0;
  #isReading = false;
  #isReadToEnd = false;
  #hasEnded = false;
  #silentTicks = 0;
  #ticksToResend: number;
  /** Chunks below this may have been lost together: each is sent again when the receiver turns out to miss it. */
  #doubtedUpTo = 0;
  /** What was sent again since the last tick. */
  #resent = -1;
  /** Where the receiver said it was since something was last sent again; -1: it said nothing. */
  #told = -1;
  /** How many times in a row it was further back than it had been. */
  #relapses = 0;

  constructor(options: SnapshotSenderOptions) {
    this.#options = options;
    this.#ticksToResend = options.resendTicks;
  }

  start(): void {
    this.#fill();
  }

  acknowledged({ term, id, next, isRefused }: SnapshotAck): void {
    if (this.#hasEnded || term !== this.#options.term || id !== this.#options.reader.id) return;
    if (isRefused) {
      this.#end('the member cannot use it');
      return;
    }
    if (next > this.#first + this.#chunks.length) return; // Nothing of this sender's.
    this.#told = Math.max(this.#told, next);
    if (next < this.#first) return; // Late; or the receiver lost what it had, and then says so again.
    const isProgress = next > this.#first;
    if (isProgress) this.#confirm(next);
    if (this.#isReadToEnd && this.#chunks.length === 0) {
      this.#end(undefined);
      return;
    }
    if (!isProgress || next < this.#doubtedUpTo) this.#resendFirst();
    this.#fill();
  }

  #confirm(next: number): void {
    for (const chunk of this.#chunks.splice(0, next - this.#first)) this.#bytes -= chunk.bytes.length;
    this.#first = next;
    this.#silentTicks = 0;
    this.#ticksToResend = this.#options.resendTicks;
  }

  /** At most once in a tick: a receiver that is told the same twice says so twice. */
  #resendFirst(): void {
    const [chunk] = this.#chunks;
    if (chunk === undefined || this.#resent === this.#first) return;
    this.#resent = this.#first;
    this.#options.send(chunk);
  }

  tick(): void {
    if (this.#hasEnded) return;
    this.#resent = -1;
    if (this.#chunks.length === 0) return; // The state is still being read.
    this.#silentTicks += 1;
    if (this.#silentTicks >= this.#options.patienceTicks) {
      this.#end('the member does not answer');
      return;
    }
    this.#ticksToResend -= 1;
    if (this.#ticksToResend <= 0) this.#resend();
  }

  #resend(): void {
    this.#relapses = this.#told >= 0 && this.#told < this.#first ? this.#relapses + 1 : 0;
    if (this.#relapses >= relapsesMax) {
      this.#end('the member has lost what it had of it');
      return;
    }
    this.#told = -1;
    this.#ticksToResend = this.#options.resendTicks;
    this.#doubtedUpTo = this.#first + this.#chunks.length;
    this.#resendFirst();
  }

  #fill(): void {
    if (this.#hasEnded || this.#isReading || this.#isReadToEnd) return;
    if (this.#chunks.length > 0 && this.#bytes >= windowBytes) return;
    this.#isReading = true;
    const { reader, later } = this.#options;
    reader.next().then(
      (bytes) => later(() => this.#read(bytes)),
      (cause: unknown) => later(() => this.#end(`it cannot be read: ${String(cause)}`)),
    );
  }

  #read(bytes: Uint8Array | undefined): void {
    this.#isReading = false;
    if (this.#hasEnded) return;
    this.#isReadToEnd = bytes === undefined;
    const { term, reader, send } = this.#options;
    const chunk: SnapshotChunk = {
      kind: 'snapshotChunk',
      term,
      snapshot: reader.snapshot,
      id: reader.id,
      sequence: this.#first + this.#chunks.length,
      isLast: bytes === undefined,
      bytes: bytes ?? noBytes,
    };
    this.#chunks.push(chunk);
    this.#bytes += chunk.bytes.length;
    send(chunk);
    this.#fill();
  }

  #end(failure: string | undefined): void {
    if (this.#hasEnded) return;
    this.close();
    this.#options.onEnd(failure);
  }

  /** Nobody needs it any more. */
  close(): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.#chunks.length = 0;
    this.#options.reader.close();
  }
}

const noBytes = new Uint8Array(0);
