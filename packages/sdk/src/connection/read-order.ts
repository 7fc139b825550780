/**
 * The highest revision a client was told of, by whatever it read, wrote or watched. An answer from below it comes from a member that is behind:
 * taken, it would show the client a state before the one it has acted on.
 */
export class ReadOrder {
  #highest = 0;

  get highest(): number {
    return this.#highest;
  }

  observe(revision: number): void {
    if (revision > this.#highest) this.#highest = revision;
  }
}
