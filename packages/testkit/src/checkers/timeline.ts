import type { History, Operation, Watch } from '../history.ts';
import { showOperation } from './show.ts';

/** Something that proves that a revision existed by a time: an answer's header, or a watch's message. */
interface Showing {
  readonly time: number;
  readonly revision: number;
  readonly source: Operation | Watch;
}

/** When which revision had been shown to anybody. By this, real time bounds what may come after what. */
export class Timeline {
  readonly #showings: readonly Showing[];
  /** Position in `#showings` of the highest revision shown up to and including each position. */
  readonly #highest: Uint32Array;

  constructor(history: History) {
    const showings: Showing[] = [];
    for (const operation of history.operations) {
      const { outcome } = operation;
      if (outcome.status === 'ok') showings.push({ time: operation.return, revision: outcome.revision, source: operation });
    }
    for (const watch of history.watches) {
      for (const message of watch.messages) {
        if (message.type === 'closed') continue;
        const event = message.type === 'events' ? message.events.at(-1) : undefined;
        const revision = Math.max(message.revision, event?.kv.modRevision ?? 0);
        showings.push({ time: message.time, revision, source: watch });
      }
    }
    showings.sort((a, b) => a.time - b.time);
    this.#showings = showings;
    this.#highest = new Uint32Array(showings.length);
    for (let at = 1; at < showings.length; at++) {
      const before = this.#highest[at - 1] as number;
      this.#highest[at] = (showings[at] as Showing).revision > (showings[before] as Showing).revision ? at : before;
    }
  }

  /** The highest revision anybody was ever shown; 0 for an empty history. */
  get lastRevision(): number {
    return this.#revisionAt(this.#showings.length - 1);
  }

  /** The highest revision shown before `time`; 0 if none was. */
  shownBefore(time: number): number {
    return this.#revisionAt(this.#countBefore(time) - 1);
  }

  /** The line of a finding that tells by what {@link shownBefore} is known. */
  proofBefore(time: number): string {
    const showing = this.#showings[this.#highest[this.#countBefore(time) - 1] ?? 0];
    if (showing === undefined) return 'nothing';
    const { source } = showing;
    return 'outcome' in source ? showOperation(source) : `watch ${source.id} told of revision ${showing.revision} at ${showing.time} ms`;
  }

  /** When a revision as high as this was first shown; infinite if it never was. */
  firstShown(revision: number): number {
    let low = 0;
    let high = this.#showings.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#revisionAt(middle) >= revision) high = middle;
      else low = middle + 1;
    }
    return this.#showings[low]?.time ?? Number.POSITIVE_INFINITY;
  }

  #revisionAt(at: number): number {
    return at < 0 ? 0 : (this.#showings[this.#highest[at] as number] as Showing).revision;
  }

  #countBefore(time: number): number {
    let low = 0;
    let high = this.#showings.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#showings[middle] as Showing).time < time) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
