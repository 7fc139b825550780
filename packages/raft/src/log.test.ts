import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RaftLog } from './log.ts';
import type { Entry, StorageAppendResponse } from './types.ts';

const data = new Uint8Array(1);
const entry = (term: number, index: number): Entry => ({ term, index, type: 'normal', data });
const start = { index: 0, term: 0 };

/** A disk that works in order, one append at a time. */
class Disk {
  readonly #queue: { entries: readonly Entry[]; response: StorageAppendResponse }[] = [];
  #entries: Entry[] = [];

  write(entries: readonly Entry[], response: StorageAppendResponse): void {
    this.#queue.push({ entries, response });
  }

  /** Makes the oldest append durable. */
  flush(): StorageAppendResponse | undefined {
    const next = this.#queue.shift();
    if (!next) return undefined;
    this.#entries = [...this.#entries.slice(0, next.entries[0]!.index - 1), ...next.entries];
    return next.response;
  }

  /** Every state the disk can be in from now on, whenever the power goes. */
  futures(): readonly (readonly Entry[])[] {
    const states = [this.#entries];
    for (const { entries } of this.#queue) states.push([...states.at(-1)!.slice(0, entries[0]!.index - 1), ...entries]);
    return states;
  }
}

describe('the log', () => {
  it('calls durable only what no write under way can take from the disk again', () => {
    // A leader of term t sends entries from `prev` on; how many are new, how many re-sent of older terms, is chance. Then writes and flushes.
    const command = fc.oneof(
      fc.record({ kind: fc.constant('merge' as const), prev: fc.nat(6), terms: fc.array(fc.nat(3), { minLength: 1, maxLength: 4 }) }),
      fc.constant({ kind: 'write' as const }),
      fc.constant({ kind: 'flush' as const }),
    );
    let checks = 0;
    fc.assert(
      fc.property(fc.array(command, { maxLength: 40 }), (commands) => {
        const log = new RaftLog(start, [], 0, 0);
        const disk = new Disk();
        for (const step of commands) {
          if (step.kind === 'merge') mergeSome(log, step.prev, step.terms);
          if (step.kind === 'write') {
            const entries = log.takeUnwritten(2);
            if (entries.length > 0) disk.write(entries, log.began(0));
          }
          const response = step.kind === 'flush' ? disk.flush() : undefined;
          if (response) log.acknowledge(response);
          for (const entries of disk.futures()) {
            for (let index = 1; index <= log.durableIndex; index++) {
              if (entries[index - 1]?.term !== log.termAt(index)) expect.fail(`the disk may lose entry ${index}`);
            }
          }
          checks += log.durableIndex;
        }
      }),
      { numRuns: 2000 },
    );
    expect(checks).toBeGreaterThan(1000);
  });

  /** Entries from `prev` on with non-decreasing terms, as some leader could have them. */
  function mergeSome(log: RaftLog, prev: number, terms: readonly number[]): void {
    const index = Math.min(prev, log.lastIndex);
    let term = log.termAt(index)!;
    const entries = terms.map((step, at) => {
      term = Math.max(term, 1) + (step === 3 ? 1 : 0);
      return entry(term, index + 1 + at);
    });
    log.merge({ index, term: log.termAt(index)! }, entries);
  }

  it('gives the state machine nothing that is not committed and durable', () => {
    const log = new RaftLog(start, [], 0, 0);
    log.merge(start, [entry(1, 1), entry(1, 2), entry(1, 3)]);
    expect(log.commitTo(2)).toBe(true);
    expect(log.takeUnapplied()).toEqual([]);
    const written = log.takeUnwritten(100);
    expect(written).toHaveLength(3);
    log.acknowledge(log.began(0));
    expect(log.takeUnapplied().map(({ index }) => index)).toEqual([1, 2]);
    expect(log.hasUnapplied).toBe(false);
    expect([log.commitTo(1), log.committedIndex]).toEqual([false, 2]);
  });

  it('never replaces a committed entry', () => {
    const log = new RaftLog(start, [entry(1, 1), entry(1, 2)], 2, 0);
    expect(() => log.merge({ index: 1, term: 1 }, [entry(2, 2)])).toThrow('entry 2 is to be replaced, and 2 is committed');
  });

  it('is compared by its last term, then by its length', () => {
    const log = new RaftLog(start, [entry(1, 1), entry(2, 2)], 0, 0);
    const cases: [number, number, boolean][] = [
      [2, 2, true],
      [3, 2, true],
      [1, 2, false],
      [1, 3, true],
      [9, 1, false],
    ];
    for (const [index, term, isUpToDate] of cases) expect([index, term, log.isUpToDate(index, term)]).toEqual([index, term, isUpToDate]);
  });

  it('remembers the term of the last entry it forgot', () => {
    const log = new RaftLog(start, [entry(1, 1), entry(2, 2), entry(2, 3)], 3, 0);
    log.takeUnapplied();
    log.appliedTo(3);
    log.compact(2);
    expect([log.compactedIndex, log.termAt(1), log.termAt(2), log.termAt(3), log.lastIndex]).toEqual([2, undefined, 2, 2, 3]);
    log.compact(3);
    log.compact(1);
    expect([log.compactedIndex, log.lastTerm, log.append(3, 'normal', data).index]).toEqual([3, 2, 4]);
  });

  it('finds where a batch of bytes ends, and what may be forgotten, as counting would', () => {
    const sizes = fc.array(fc.nat(5), { minLength: 1, maxLength: 12 });
    fc.assert(
      fc.property(sizes, fc.nat(12), fc.nat(12), fc.nat(20), fc.nat(12), (list, compacted, from, maxBytes, maxEntries) => {
        const entries = list.map((size, at): Entry => ({ term: 1, index: at + 1, type: 'normal', data: new Uint8Array(size) }));
        const log = new RaftLog(start, entries, list.length, 0);
        log.takeUnapplied();
        log.appliedTo(list.length);
        log.compact(Math.min(compacted, list.length));
        const begin = log.compactedIndex;
        const bytes = (above: number, upTo: number): number => list.slice(above, upTo).reduce((sum, size) => sum + size, 0);

        const prev = Math.min(Math.max(from, begin), list.length);
        let end = Math.min(prev + 1, list.length);
        while (end < list.length && bytes(prev, end + 1) <= maxBytes) end += 1;
        expect(log.batchEnd(prev, maxBytes)).toBe(end);
        expect(log.bytesBetween(prev, end)).toBe(bytes(prev, end));

        let kept = list.length;
        while (kept > begin && list.length - (kept - 1) <= maxEntries && bytes(kept - 1, list.length) <= maxBytes) kept -= 1;
        expect(log.catchUpIndex(maxEntries, maxBytes)).toBe(kept);
      }),
    );
  });

  it('finds the last place of a term as searching would', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(3), { maxLength: 10 }), fc.nat(12), fc.nat(8), (steps, index, term) => {
        let last = 1;
        const entries = steps.map((step, at) => {
          last += step;
          return entry(last, at + 1);
        });
        const log = new RaftLog(start, entries, 0, 0);
        let place = Math.min(index, entries.length);
        while (place > 0 && entries[place - 1]!.term > term) place -= 1;
        expect(log.lastIndexUpToTerm(index, term)).toBe(place);
      }),
    );
  });

  it('is replaced by a snapshot, and counts as durable and applied only when that is in place', () => {
    const log = new RaftLog(start, [entry(1, 1), entry(1, 2)], 1, 1);
    const snapshot = { index: 9, term: 3, confState: { voters: [1n], learners: [] } };
    log.restore(snapshot);
    expect([log.lastIndex, log.lastTerm, log.committedIndex, log.durableIndex, log.appliedIndex]).toEqual([9, 3, 9, 1, 1]);
    expect([log.isRestoring, log.takeSnapshot(), log.takeSnapshot(), log.catchUpIndex(9, 9)]).toEqual([true, snapshot, undefined, 9]);
    const response = log.began(9, snapshot);
    expect(response).toMatchObject({ index: 9, term: 3 });
    log.appliedTo(1); // Was under way.
    expect(log.acknowledge(response)).toEqual(snapshot);
    expect([log.isRestoring, log.durableIndex, log.appliedIndex, log.hasUnapplied]).toEqual([false, 9, 9, false]);
    expect(() => log.restore(snapshot)).toThrow('a snapshot at 9 is behind the commit, 9');
  });

  it.each([
    ['a gap', [entry(1, 1), entry(1, 3)]],
    ['a term that goes back', [entry(2, 1), entry(1, 2)]],
    ['a wrong beginning', [entry(1, 2)]],
  ])('does not open with %s', (_, entries) => {
    expect(() => new RaftLog(start, entries, 0, 0)).toThrow(/^raft: entry/);
  });

  it('stops the member when it is told of applies that go back', () => {
    const log = new RaftLog(start, [entry(1, 1), entry(1, 2)], 2, 0);
    log.takeUnapplied();
    log.appliedTo(2);
    expect(() => log.appliedTo(1)).toThrow('applied 1 is outside 2..2');
  });

  it.each<[string, (log: RaftLog) => void]>([
    ['commits beyond its end', (log) => log.commitTo(9)],
    ['is told of applies it did not hand out', (log) => log.appliedTo(1)],
    ['is told of another end of an append', (log) => log.acknowledge({ ...log.began(0), term: 2 })],
    ['is told of an append it did not hand out', (log) => log.acknowledge({ ...log.began(0), append: 2 })],
    ['gets a term that goes back', (log) => log.append(0, 'normal', data)],
  ])('stops the member when it %s', (_, act) => {
    const log = new RaftLog(start, [entry(1, 1), entry(1, 2)], 2, 0);
    expect(() => act(log)).toThrow(/^raft: /);
  });
});
