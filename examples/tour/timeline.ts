import { performance } from 'node:perf_hooks';

const isColoured = process.stdout.isTTY === true && process.env['NO_COLOR'] === undefined;
const paint = (code: number, text: string): string => (isColoured ? `\u001b[${code}m${text}\u001b[0m` : text);

/** What the tour prints: what happens, when, and what was checked. */
export class Timeline {
  readonly #startedAt = performance.now();
  #claims = 0;
  readonly #broken: string[] = [];

  chapter(title: string): void {
    process.stdout.write(`\n${paint(1, title)}\n`);
  }

  event(text: string): void {
    process.stdout.write(`${this.#clock()}  ${text}\n`);
  }

  /** Prints a claim as kept or broken. The tour succeeds only if every claim was kept. */
  claim(isTrue: boolean, text: string): void {
    this.#claims += 1;
    if (!isTrue) this.#broken.push(text);
    process.stdout.write(`${this.#clock()}  ${isTrue ? paint(32, 'ok') : paint(31, 'BROKEN')}  ${text}\n`);
  }

  /** The exit code. */
  summary(): number {
    const seconds = ((performance.now() - this.#startedAt) / 1000).toFixed(1);
    if (this.#broken.length === 0) {
      process.stdout.write(`\n${paint(32, `${this.#claims} claims, all checked and true, in ${seconds} s.`)}\n`);
      return 0;
    }
    process.stdout.write(`\n${paint(31, `${this.#broken.length} of ${this.#claims} claims are not true:`)}\n`);
    for (const text of this.#broken) process.stdout.write(`  ${text}\n`);
    return 1;
  }

  #clock(): string {
    return paint(2, `${((performance.now() - this.#startedAt) / 1000).toFixed(2).padStart(7)} s`);
  }
}
