import type { Entry } from '@conclave/raft';
import type { Runtime } from '@conclave/wire';

export interface ApplyQueueOptions {
  readonly runtime: Runtime;
  readonly apply: (entry: Entry) => void;
  /** Everything up to `index` is applied: told once for each slice of work. */
  readonly onApplied: (index: number) => void;
  /** The state machine's room, see StateMachine. */
  readonly room: { readonly isFull: boolean; onRoom(listener: () => void): void };
  /** Runs work that the queue put off, and ends the member if it throws. */
  readonly later: (work: () => void) => void;
}

/** Longest stretch of applying before the loop gets a turn: timers and sockets must not be late. */
const sliceMs = 2;

/**
 * Committed entries on their way into the state machine: in order, in slices, and only while it has room. The first slice runs at once, so that
 * a few entries cost no turn of the loop.
 */
export class ApplyQueue {
  readonly #options: ApplyQueueOptions;
  #entries: readonly Entry[] = [];
  #next = 0;
  /** A later turn, or the state machine, will go on. */
  #isPutOff = false;

  constructor(options: ApplyQueueOptions) {
    this.#options = options;
  }

  push(entries: readonly Entry[]): void {
    this.#entries = this.#next === this.#entries.length ? entries : [...this.#entries.slice(this.#next), ...entries];
    this.#next = 0;
    if (!this.#isPutOff) this.#slice();
  }

  /** A snapshot takes the place of what waits here. */
  clear(): void {
    this.#entries = [];
    this.#next = 0;
  }

  #slice(): void {
    const { runtime, apply, onApplied, room } = this.#options;
    const first = this.#next;
    const end = runtime.monotonic() + sliceMs;
    while (this.#next < this.#entries.length && !room.isFull) {
      if (this.#next > first && runtime.monotonic() >= end) break;
      apply(this.#entries[this.#next]!);
      this.#next += 1;
    }
    const last = this.#entries[this.#next - 1];
    if (this.#next < this.#entries.length) this.#putOff();
    if (this.#next > first) onApplied(last!.index);
  }

  #putOff(): void {
    const { runtime, room, later } = this.#options;
    this.#isPutOff = true;
    const goOn = (): void => {
      later(() => {
        this.#isPutOff = false;
        this.#slice();
      });
    };
    if (room.isFull) room.onRoom(goOn);
    else runtime.endOfTurn(goOn);
  }
}
