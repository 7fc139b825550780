import { randomInt } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DifferenceError, Pair, runSequence } from './pair.ts';
import { type Command, command, type Position } from './random-command.ts';

/** `DIFF_SEED` repeats a run, `DIFF_COMMANDS` makes it longer or shorter. */
const seed = Number(process.env['DIFF_SEED'] ?? randomInt(2 ** 31));
const commandsWanted = Number(process.env['DIFF_COMMANDS'] ?? 20_000);
const sequencesARound = 25;
const shrinkWithinMs = Number(process.env['DIFF_SHRINK_MS'] ?? 60_000);

type Sequence = readonly ((position: Position) => Command)[];

const sequence = fc.array(command, { minLength: 1, maxLength: 200, size: 'max' });

describe('beside etcd', () => {
  it(`${commandsWanted} random commands get equal answers and events`, async () => {
    await using run = new Run(await Pair.start());
    const startedAt = performance.now();
    for (let round = 0; run.commands < commandsWanted; round++) await run.round(seed + round);
    const seconds = ((performance.now() - startedAt) / 1000).toFixed(0);
    console.log(`${run.versions}: ${run.commands} commands in ${run.sequences} sequences, ${seconds} s, DIFF_SEED=${seed}`);
    expect(run.commands).toBeGreaterThanOrEqual(commandsWanted);
  });
});

/** Sequences on one pair of servers, which keep their state from one to the next, until one fails. */
class Run implements AsyncDisposable {
  commands = 0;
  sequences = 0;
  readonly versions: string;
  readonly #pair: Pair;
  #failure: string | undefined;
  #smaller: string | undefined;
  #shrinkUntil = 0;

  constructor(pair: Pair) {
    this.#pair = pair;
    this.versions = pair.versions;
  }

  /** @throws with the seed, the place and both answers, and with a smaller sequence that fails on fresh servers if there is one. */
  async round(roundSeed: number): Promise<void> {
    const property = fc.asyncProperty(sequence, (one) => this.#check(one));
    await fc.check(property, { seed: roundSeed, numRuns: sequencesARound });
    if (this.#failure === undefined) return;
    const smaller = this.#smaller ?? 'it did not fail on fresh servers alone';
    throw new Error(`DIFF_SEED=${seed}: ${this.#failure}\n\nthe smallest that fails on fresh servers: ${smaller}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pair[Symbol.asyncDispose]();
  }

  /** Once one failed, the sequences asked for are smaller forms of it, and have to fail on their own. */
  async #check(one: Sequence): Promise<void> {
    if (this.#failure === undefined) await this.#checkOnPair(one);
    else if (performance.now() < this.#shrinkUntil) await this.#checkOnFresh(one);
  }

  async #checkOnPair(one: Sequence): Promise<void> {
    const sent: string[] = [];
    try {
      await runSequence(this.#pair, one, (told) => sent.push(told));
    } catch (error) {
      this.#failure = `sequence ${this.sequences}, command ${sent.length - 1} of ${one.length}: ${explain(error)}\n${last(sent)}`;
      this.#shrinkUntil = performance.now() + shrinkWithinMs;
      throw error;
    } finally {
      this.sequences += 1;
      this.commands += sent.length;
    }
  }

  async #checkOnFresh(one: Sequence): Promise<void> {
    const sent: string[] = [];
    await using pair = await Pair.start();
    try {
      await runSequence(pair, one, (told) => sent.push(told));
    } catch (error) {
      this.#smaller = `${explain(error)}\n${sent.map((told) => `    ${told}`).join('\n')}`;
      throw error;
    }
  }
}

function explain(error: unknown): string {
  return error instanceof DifferenceError ? error.message : String(error instanceof Error ? error.stack : error);
}

function last(sent: readonly string[]): string {
  return sent
    .slice(-12)
    .map((told, at) => `    ${sent.length - Math.min(12, sent.length) + at}: ${told}`)
    .join('\n');
}
