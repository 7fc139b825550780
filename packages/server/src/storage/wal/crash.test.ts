import type { Entry, HardState } from '@conclave/raft';
import { Random, VirtualRuntime } from '@conclave/testing';
import { type CrashPolicy, type SectorFate, SimulatedDisk, type SimulatedDiskOptions } from '@conclave/testing/simulation';
import { describe, expect, test } from 'vitest';
import type { LogBatch } from '../../replica/ports.ts';
import { CorruptionError } from '../storage-error.ts';
import type { SnapshotPoint } from './log-record.ts';
import { type OpenedWal, openWal, type RecoveredWal } from './open.ts';
import type { Wal } from './wal.ts';

const identity = { clusterId: 1n, memberId: 2n };
const dir = '/wal';
const segmentBytes = { first: 16 * 1024, max: 32 * 1024 };

/**
 * What a log may hold after a crash: exactly what its first m records made of it, for some m that is at least the number of records that were
 * acknowledged. Nothing missing in between, nothing invented, nothing twice.
 */
class History {
  /** The state after each record, the first one before any. */
  #states: LogState[] = [{ base: startOfLog, entries: [], term: 0, vote: 0n, commit: 0 }];
  readonly #descriptions = new Map<string, string>();
  #acknowledged = 0;
  #beforeLastBatch = 0;
  /** The backend's durable index, as far as the log was told. */
  applied = 0;

  get last(): LogState {
    return this.#states.at(-1)!;
  }

  get lastIndex(): number {
    return lastOf(this.last).index;
  }

  /** How many records were appended so far. */
  get records(): number {
    return this.#states.length - 1;
  }

  get acknowledged(): number {
    return this.#acknowledged;
  }

  /** The backend is never ahead of what is durable in the log. */
  get durableCommit(): number {
    return this.#states[this.#acknowledged]!.commit;
  }

  /** The backend goes on, to `behind` entries before what is durably committed; and from before a snapshot only to its end. */
  goOn(behind: number): void {
    this.applied = Math.max(this.applied, this.durableCommit - behind, this.#states[this.#acknowledged]!.base.index);
  }

  /** How many records there were before the last batch: a log whose last batch is damaged may be cut there. */
  get beforeLastBatch(): number {
    return this.#beforeLastBatch;
  }

  add(batch: LogBatch): void {
    this.#beforeLastBatch = this.records;
    if (batch.snapshot !== undefined) this.#states.push({ ...this.last, base: batch.snapshot, entries: [] });
    for (const entry of batch.entries) {
      const { base, entries } = this.last;
      this.#states.push({ ...this.last, entries: [...entries.slice(0, entry.index - 1 - base.index), entry] });
    }
    if (batch.hardState !== undefined) this.#states.push({ ...this.last, ...batch.hardState });
  }

  acknowledge(records: number): void {
    this.#acknowledged = Math.max(this.#acknowledged, records);
  }

  /** Which of the states allowed was recovered; -1 for one that is not allowed. */
  find(recovered: RecoveredWal, acknowledged: number = this.#acknowledged): number {
    const found = describeRecovered(recovered);
    for (let m = this.records; m >= acknowledged; m--) {
      if (this.#describe(m) === found) return m;
    }
    return -1;
  }

  #describe(m: number): string {
    const key = `${m}/${this.applied}`;
    const known = this.#descriptions.get(key) ?? describeState(this.#states[m]!, this.applied);
    this.#descriptions.set(key, known);
    return known;
  }

  /** The log goes on from what was recovered; the rest never happened. */
  continueFrom(m: number): void {
    this.#states.length = m + 1;
    const state = this.last;
    const term = Math.max(state.term, lastOf(state).term);
    this.#states[m] = { ...state, term, vote: term > state.term ? 0n : state.vote };
    this.#acknowledged = m;
    this.#descriptions.clear();
  }
}

interface LogState extends HardState {
  /** What the newest snapshot covers; entries follow it. */
  readonly base: SnapshotPoint;
  readonly entries: readonly Entry[];
}

const startOfLog: SnapshotPoint = { index: 0, term: 0 };

function lastOf({ base, entries }: LogState): SnapshotPoint {
  return entries.at(-1) ?? base;
}

function describeState(state: LogState, applied: number): string {
  const { base, entries, commit } = state;
  const term = Math.max(state.term, lastOf(state).term);
  const vote = term > state.term ? 0n : state.vote;
  const above = entries.filter(({ index }) => index > applied);
  return describeLog(base.index > applied ? base : undefined, above, { term, vote, commit });
}

function describeRecovered({ snapshot, entries, hardState }: RecoveredWal): string {
  return describeLog(snapshot, entries, hardState);
}

function describeLog(
  snapshot: SnapshotPoint | undefined,
  entries: readonly Entry[],
  hardState: HardState = { term: 0, vote: 0n, commit: 0 },
): string {
  const { term, vote, commit } = hardState;
  const texts = entries.map((entry) => `${entry.index}/${entry.term}/${entry.type}/${Buffer.from(entry.data).toString('base64')}`);
  const base = snapshot === undefined ? '' : `snapshot ${snapshot.index}/${snapshot.term} `;
  return `${term} ${vote} ${commit} ${base}${texts.join(' ')}`;
}

/** For comparing: matchers walk byte arrays element by element. */
function textOf(recovered: RecoveredWal): string {
  return `${recovered.firstIndex} ${describeRecovered(recovered)}`;
}

/** A batch that raft could have made: sometimes a new term, sometimes replacing entries that are not committed, sometimes with a snapshot for all before. */
function randomBatch(history: History, random: Random): LogBatch {
  const { term, vote, commit } = history.last;
  const newTerm = term + (term === 0 || random.chance(0.1) ? 1 : 0);
  // It may end before entries that were never committed, or far behind all that this member has.
  const snapshot = random.chance(0.06)
    ? { index: commit + 1 + random.below(2 * (history.lastIndex - commit) + 5), term: newTerm }
    : undefined;
  const lastIndex = snapshot?.index ?? history.lastIndex;
  const known = snapshot?.index ?? commit;
  const first = snapshot === undefined && newTerm > term ? commit + 1 + random.below(lastIndex - commit + 1) : lastIndex + 1;
  const count = random.pick([0, 1, 1, 2, 4]);
  const entries = Array.from({ length: count }, (_, at): Entry => {
    const data = random.bytes(random.pick([0, 10, 100, 300, random.below(3_000)]));
    return { index: first + at, term: newTerm, type: random.chance(0.05) ? 'confChange' : 'normal', data };
  });
  const last = count > 0 ? first + count - 1 : lastIndex;
  // Often everything: then a segment may be all that is needed as soon as its first batch is written.
  const newCommit = random.chance(0.6) ? last : known + random.below(last - known + 1);
  const needsHardState = snapshot !== undefined || newTerm > term || count === 0 || random.chance(0.3);
  const newVote = newTerm > term ? BigInt(random.below(4)) : vote;
  return { entries, hardState: needsHardState ? { term: newTerm, vote: newVote, commit: newCommit } : undefined, snapshot };
}

function open(disk: SimulatedDisk, appliedIndex: number, runtime: VirtualRuntime = new VirtualRuntime()): Promise<OpenedWal> {
  const fatal = (cause: Error): never => {
    throw cause;
  };
  return openWal({ disk: disk.mount(), dir, runtime, fatal, identity, appliedIndex, segmentBytes });
}

/** Lets everything finish that waits for nothing but promises. */
function settle(): Promise<void> {
  return new VirtualRuntime().advance(0);
}

/** Crashes at one moment of a run, and what may be found after each. */
interface Moment {
  readonly disk: SimulatedDisk;
  readonly acknowledged: number;
  readonly applied: number;
}

/** A run over many segments, remembered at every operation of the disk that changed something. */
async function recordRun(
  batches: number,
  seed: number,
  releases = 0.3,
): Promise<{ moments: Moment[]; history: History; disk: SimulatedDisk }> {
  const random = new Random(seed);
  const history = new History();
  const moments: Moment[] = [];
  const remember = (): void => {
    moments.push({ disk: disk.fork(), acknowledged: history.acknowledged, applied: history.applied });
  };
  const disk = new SimulatedDisk({ onOperation: remember });
  const { wal } = await open(disk, 0);
  moments.length = 0;
  for (let at = 0; at < batches; at++) {
    const batch = randomBatch(history, random);
    history.add(batch);
    const { records } = history;
    wal.append(batch, () => history.acknowledge(records));
    remember();
    if (random.chance(releases)) {
      history.goOn(random.pick([0, 0, 0, 1, 3]));
      wal.release(history.applied);
    }
    await settle();
  }
  return { moments, history, disk };
}

/** Every fate of every single sector that was not flushed, the others all kept or all lost; and every name that was not, kept or lost. */
function* crashPolicies(disk: SimulatedDisk): Generator<CrashPolicy> {
  const { sectors, names } = countChoices(disk);
  for (const other of ['keep', 'drop'] as const) {
    for (const names of ['keep', 'drop'] as const) yield policy(other, names);
    for (let sector = 0; sector < sectors; sector++) {
      for (const fate of other === 'keep' ? (['drop', 'garbage', 'shred'] as const) : (['keep'] as const)) {
        yield policy(other, 'keep', { sector, fate });
      }
    }
    for (let name = 0; name < names; name++) {
      yield policy(other, 'keep', undefined, name);
      yield policy(other, 'drop', undefined, name);
    }
  }
}

function countChoices(disk: SimulatedDisk): { sectors: number; names: number } {
  const counted = { sectors: 0, names: 0 };
  disk.fork().cutPower({
    keepsName: () => counted.names++ >= 0,
    sector: () => (counted.sectors++ >= 0 ? 'keep' : 'drop'),
    garbage: (length) => new Uint8Array(length),
  });
  return counted;
}

function policy(
  others: SectorFate,
  names: 'keep' | 'drop',
  exception?: { readonly sector: number; readonly fate: SectorFate },
  exceptionalName?: number,
): CrashPolicy {
  const random = new Random(exception?.sector ?? 0);
  let sector = 0;
  let name = 0;
  return {
    keepsName: () => (name++ === exceptionalName) !== (names === 'keep'),
    sector: () => (sector++ === exception?.sector ? exception.fate : others),
    garbage: (length) => random.bytes(length),
  };
}

function* pairs(count: number): Generator<[number, number]> {
  for (let from = 0; from < count; from++) {
    for (let to = 0; to < count; to++) if (from !== to) yield [from, to];
  }
}

describe('recovery', () => {
  test('on every prefix of a recorded run and every sector tear of its end loses nothing acknowledged, and gives the same again', async () => {
    const { moments, history } = await recordRun(40, 1);
    let states = 0;
    let cuts = 0;
    for (const { disk, acknowledged, applied } of moments) {
      history.applied = applied;
      for (const crash of crashPolicies(disk)) {
        const crashed = disk.fork();
        crashed.cutPower(crash);
        const { recovered } = await open(crashed, applied);
        const found = history.find(recovered, acknowledged);
        expect(found, `${recovered.entries.length} entries from ${recovered.firstIndex}`).not.toBe(-1);
        if (found < history.records) cuts++;
        crashed.cutPower(policy('drop', 'drop'));
        expect(textOf((await open(crashed, applied)).recovered)).toBe(textOf(recovered));
        states++;
      }
    }
    expect(states).toBeGreaterThan(2_000);
    expect(cuts).toBeGreaterThan(100);
  }, 120_000);

  test('crashed in the middle, at any operation, gives the same the next time', async () => {
    const { moments, history } = await recordRun(40, 2);
    const random = new Random(2);
    for (const { disk, acknowledged, applied } of moments) {
      history.applied = applied;
      disk.cutPower(random);
      const { recovered } = await open(disk.fork(), applied);
      expect(history.find(recovered, acknowledged)).not.toBe(-1);
      const steps: SimulatedDisk[] = [];
      const recovering = disk.fork({ onOperation: () => steps.push(recovering.fork()) });
      await open(recovering, applied);
      for (const step of steps) {
        step.cutPower(random);
        expect(textOf((await open(step, applied)).recovered)).toBe(textOf(recovered));
      }
    }
  }, 120_000);

  test('makes durable what a killed process left merely visible, before it returns', async () => {
    const { moments, history } = await recordRun(40, 3);
    for (const { disk, acknowledged, applied } of moments) {
      history.applied = applied;
      disk.killProcess();
      const { recovered } = await open(disk, applied);
      expect(history.find(recovered, acknowledged)).not.toBe(-1);
      disk.cutPower(policy('drop', 'drop'));
      expect(textOf((await open(disk, applied)).recovered)).toBe(textOf(recovered));
    }
  });

  test('tells a torn last batch from damage that a later batch proves', async () => {
    const { history, disk } = await recordRun(16, 4, 0);
    await settle();
    const names = [...disk.names(dir)].sort();
    let refused = 0;
    let cut = 0;
    for (const name of names) {
      const path = `${dir}/${name}`;
      for (let block = 0; block < disk.contents(path).length; block += 4096) {
        const damaged = disk.fork();
        damaged.overwrite(path, block, new Uint8Array(4096));
        const result = await open(damaged, history.applied).catch((error: unknown) => error);
        if (result instanceof CorruptionError) refused++;
        else {
          const found = history.find((result as OpenedWal).recovered, 0);
          expect(found).toBeGreaterThan(0);
          if (found < history.records) cut++;
        }
      }
    }
    expect(refused).toBeGreaterThan(10);
    // Only the blocks of the very last batch, which nothing follows.
    expect(cut).toBeGreaterThan(0);
    expect(cut).toBeLessThanOrEqual(4);
  });

  test('refuses a block that was written to the wrong place', async () => {
    const { history, disk } = await recordRun(16, 5, 0);
    const path = `${dir}/${[...disk.names(dir)].sort()[0]}`;
    const bytes = disk.contents(path);
    const used = bytes.length / 4096;
    for (let to = 0; to < used - 1; to++) {
      for (let from = 0; from < used; from++) {
        if (from === to) continue;
        const misdirected = disk.fork();
        misdirected.overwrite(path, to * 4096, bytes.subarray(from * 4096, (from + 1) * 4096));
        await expect(open(misdirected, history.applied), `block ${from} at the place of ${to}`).rejects.toThrow(CorruptionError);
      }
    }
  });

  test('is not misled by a block of the same segment at a wrong place, where the applied part is skipped', async () => {
    let harmless = 0;
    for (let seed = 11; seed < 31; seed++) {
      const { history, disk } = await recordRun(10 + (seed % 10), seed, 0);
      const random = new Random(seed);
      disk.killProcess();
      for (const name of [...disk.names(dir)].sort().slice(-2)) {
        const path = `${dir}/${name}`;
        const bytes = disk.contents(path);
        for (const [from, to] of pairs(bytes.length / 4096)) {
          history.applied = random.below(history.durableCommit + 1);
          const misdirected = disk.fork();
          misdirected.overwrite(path, to * 4096, bytes.subarray(from * 4096, (from + 1) * 4096));
          const result = await open(misdirected, history.applied).catch((error: unknown) => error);
          if (result instanceof CorruptionError) continue;
          expect(history.find((result as OpenedWal).recovered, history.beforeLastBatch)).not.toBe(-1);
          harmless++;
        }
      }
    }
    expect(harmless).toBeGreaterThan(50);
  });

  test.each(['sealed', 'unsealed'])(
    'of a flipped bit in a log that was %s is refused, harmless, or a cut of the last batch',
    async (seal) => {
      const { moments, history, disk } = await recordRun(30, 7);
      const atRest = moments.at(-1)!.disk.fork();
      const random = new Random(6);
      if (seal === 'sealed') {
        disk.killProcess();
        await (await open(atRest, history.applied)).wal.close();
      }
      const outcomes = { same: 0, cut: 0, refused: 0 };
      for (let flip = 0; flip < 1_500; flip++) {
        const damaged = atRest.fork();
        const path = `${dir}/${random.pick(damaged.names(dir))}`;
        const bytes = damaged.contents(path);
        const at = random.below(bytes.length);
        damaged.overwrite(path, at, Uint8Array.of(bytes[at]! ^ (1 << random.below(8))));
        const result = await open(damaged, history.applied).catch((error: unknown) => error);
        if (result instanceof CorruptionError) outcomes.refused++;
        else {
          const found = history.find((result as OpenedWal).recovered, 0);
          expect(found).not.toBe(-1);
          if (found === history.records) outcomes.same++;
          else outcomes.cut++;
        }
      }
      expect(outcomes.refused).toBeGreaterThan(20);
      if (seal === 'sealed') expect(outcomes.cut).toBe(0);
    },
    60_000,
  );
});

/**
 * One member's disk over several lives, with latency, crashes at any moment (also while it opens) and both kinds of crash. Throws at the first
 * promise that was broken.
 */
class Lives {
  readonly #random: Random;
  readonly #runtime: VirtualRuntime;
  readonly #disk: SimulatedDisk;
  readonly #history = new History();
  #failure: Error | undefined;

  constructor(seed: number, options: SimulatedDiskOptions = {}) {
    this.#random = new Random(seed);
    this.#runtime = new VirtualRuntime({ seed });
    const latencyMs = this.#random.pick([() => 0, () => 1, () => this.#random.below(4)]);
    this.#disk = new SimulatedDisk({ runtime: this.#runtime, latencyMs, ...options });
  }

  async run(lives: number): Promise<void> {
    await this.#runtime.run(open(this.#disk, 0, this.#runtime));
    for (let life = 0; life < lives; life++) {
      this.#crash();
      await this.#crashWhileOpening();
      const { wal, recovered } = await this.#runtime.run(open(this.#disk, this.#history.applied, this.#runtime));
      const found = this.#history.find(recovered);
      if (found === -1) throw new Error(`life ${life}: of ${this.#history.acknowledged} acknowledged records some are gone`);
      this.#history.continueFrom(found);
      await this.#work(wal);
    }
  }

  #crash(): void {
    if (this.#random.chance(0.3)) this.#disk.killProcess();
    else this.#disk.cutPower(this.#random);
  }

  async #crashWhileOpening(): Promise<void> {
    if (this.#random.chance(0.5)) return;
    open(this.#disk, this.#history.applied, this.#runtime).catch((error: unknown) => {
      this.#failure = new Error('while opening', { cause: error });
    });
    await this.#runtime.advance(this.#random.below(20));
    if (this.#failure !== undefined) throw this.#failure;
    this.#crash();
  }

  async #work(wal: Wal): Promise<void> {
    for (let at = this.#random.below(40); at > 0; at--) {
      const batch = randomBatch(this.#history, this.#random);
      this.#history.add(batch);
      const { records } = this.#history;
      wal.append(batch, () => this.#history.acknowledge(records));
      if (this.#random.chance(0.4)) this.#release(wal);
      if (this.#random.chance(0.7)) await this.#runtime.advance(this.#random.pick([0, 1, 2, 5, 80]));
    }
  }

  #release(wal: Wal): void {
    this.#history.goOn(this.#random.pick([0, 0, 1]));
    wal.release(this.#history.applied);
  }
}

describe('over many lives on a disk that drops unflushed writes', () => {
  const seeds = Array.from({ length: 200 }, (_, at) => at + 1);

  test('200 seeds: nothing acknowledged is lost, nothing is invented', async () => {
    for (const seed of seeds) {
      await new Lives(seed).run(8).catch((error: unknown) => {
        throw new Error(`seed ${seed}`, { cause: error });
      });
    }
  }, 120_000);

  test('and the same run notices a disk whose flushes do nothing', async () => {
    let violated = 0;
    for (const seed of seeds.slice(0, 20)) await new Lives(seed, { ignoresSync: true }).run(8).catch(() => violated++);
    expect(violated).toBeGreaterThan(10);
  });
});
