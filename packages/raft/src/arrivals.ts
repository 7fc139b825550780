/** Numbers this far below the highest are taken for repeated: nothing is reordered over such a distance. */
const window = 1024;

/** Which of a member's numbered messages have arrived: the network may repeat them, and change their order. */
export class Arrivals {
  #incarnation = 0;
  #highest = 0;
  #seen: Set<number> = new Set();

  /** Notes the message. @returns false when it had arrived before, or may have. */
  isNew(incarnation: number, sequence: number): boolean {
    if (incarnation < this.#incarnation) return false;
    if (incarnation > this.#incarnation) {
      this.#incarnation = incarnation;
      this.#highest = 0;
      this.#seen.clear();
    }
    if (sequence <= this.#highest - window || this.#seen.has(sequence)) return false;
    this.#highest = Math.max(this.#highest, sequence);
    this.#seen.add(sequence);
    if (this.#seen.size > 2 * window) this.#prune();
    return true;
  }

  #prune(): void {
    for (const sequence of this.#seen) if (sequence <= this.#highest - window) this.#seen.delete(sequence);
  }
}
