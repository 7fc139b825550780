import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { commitPerEntry, eventually, StalledBackend } from '@conclave/testkit';
import { type Runtime, silentLog, systemRuntime, type Timer } from '@conclave/wire';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Backend, Change, Changes, Row, Table } from './backend.ts';
import { BufferedStore, durableIndexKey, type StoreBounds } from './buffered-store.ts';
import { compareBytes } from './bytes.ts';
import { LmdbBackend } from './lmdb.ts';
import { MemoryBackend } from './memory.ts';
import { StateCorruptionError } from './state-corruption-error.ts';

/** Timers fire when the test says so. */
class ManualRuntime implements Runtime {
  readonly log = silentLog;
  #timers = new Set<() => void>();

  monotonic = (): number => 0;
  boot = (): number => 0;
  wall = (): number => 0;
  random = (): number => 0;

  timer(_: number, callback: () => void): Timer {
    this.#timers.add(callback);
    return { cancel: () => this.#timers.delete(callback) };
  }

  endOfTurn(callback: () => void): void {
    setImmediate(callback);
  }

  fire(): void {
    for (const callback of [...this.#timers]) if (this.#timers.delete(callback)) callback();
  }
}

class FatalError extends Error {}

/** One life of a member: what a crash takes away. */
class Life {
  readonly runtime = new ManualRuntime();
  readonly causes: Error[] = [];
  readonly backend: StalledBackend;
  readonly store: BufferedStore;

  constructor(inner: Backend, bounds: Partial<StoreBounds> = {}) {
    this.backend = new StalledBackend(inner);
    const fatal = (cause: Error): never => {
      this.causes.push(cause);
      throw new FatalError('fatal', { cause });
    };
    this.store = new BufferedStore({ backend: this.backend, runtime: this.runtime, fatal, bounds });
  }

  async releaseOne(): Promise<void> {
    if (this.backend.held === 0) return;
    const before = this.store.durableIndex;
    this.backend.releaseOne();
    await eventually('the commit', () => this.store.durableIndex > before);
  }
}

const table = fc.constantFrom<Table>('head', 'log');
const key = fc.array(fc.constantFrom(0, 1, 255), { minLength: 1, maxLength: 2 }).map((bytes) => Uint8Array.from(bytes));
const value = fc.uint8Array({ maxLength: 4 });
const change = fc.record({ table, key, value: fc.option(value, { nil: undefined, freq: 3 }) });
const step = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({ kind: fc.constant('entry' as const), rows: fc.array(change, { maxLength: 5 }), isInterrupted: fc.boolean() }),
  },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('fire' as const) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('release' as const) }) },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('scan' as const),
      table,
      start: key,
      end: fc.option(key, { nil: undefined }),
      reverse: fc.boolean(),
      limit: fc.option(fc.nat(4), { nil: undefined }),
    }),
  },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('get' as const), table, key }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('crash' as const), isLanded: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('close' as const) }) },
);

type Rows = ReadonlyMap<string, Row>;

function written(rows: Rows, changes: readonly Change[]): Rows {
  const next = new Map(rows);
  for (const { table, key, value } of changes) {
    const name = `${table} ${Buffer.from(key).toString('hex')}`;
    if (value === undefined) next.delete(name);
    else next.set(name, { key, value });
  }
  return next;
}

function inTable(rows: Rows, table: Table): Row[] {
  const own = [...rows].filter(([name]) => name.startsWith(`${table} `)).map(([, row]) => row);
  return own.sort((a, b) => Buffer.compare(a.key, b.key));
}

function shown(rows: Iterable<Row>): string[] {
  return Array.from(rows, ({ key, value }) => `${Buffer.from(key).toString('hex')} = ${Buffer.from(value).toString('hex')}`);
}

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'conclave-store-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

interface Subject {
  open(): Backend;
  reopen(backend: Backend): Promise<Backend>;
}

const subjects: [string, Subject][] = [
  ['the in-memory twin', { open: () => new MemoryBackend(), reopen: async (backend) => backend }],
  [
    'LMDB',
    {
      open: () => new LmdbBackend({ path: join(folder, 'db'), runtime: systemRuntime() }),
      async reopen(backend) {
        await backend.close();
        return this.open();
      },
    },
  ],
];

describe.each(subjects)('BufferedStore over %s', (_, subject) => {
  test('reads are right in every layer, and a crash leaves exactly the entries up to the durable index', async () => {
    let inner = subject.open();
    let index = new Life(inner).store.durableIndex;
    const property = fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
      const rowsOf = (backend: Backend): Rows =>
        (['head', 'log'] as const).reduce<Rows>(
          (rows, table) =>
            written(
              rows,
              [...backend.scan(table, new Uint8Array(0), undefined)].map((row) => ({ table, ...row })),
            ),
          new Map(),
        );
      const snapshots = new Map<number, Rows>([[index, rowsOf(inner)]]);
      let life = new Life(inner);
      let rows = snapshots.get(index)!;
      for (const each of steps) {
        const { store } = life;
        if (each.kind === 'entry') {
          for (const [at, row] of each.rows.entries()) {
            if (row.value === undefined) store.delete(row.table, row.key);
            else store.put(row.table, row.key, row.value);
            // Whoever asks for durability in the middle of an entry gets whole entries all the same.
            if (each.isInterrupted && at === 1) life.runtime.fire();
          }
          rows = written(rows, each.rows);
          store.applied(++index);
          snapshots.set(index, rows);
        } else if (each.kind === 'fire') life.runtime.fire();
        else if (each.kind === 'release') await life.releaseOne();
        else if (each.kind === 'get') {
          const expected = rows.get(`${each.table} ${Buffer.from(each.key).toString('hex')}`);
          expect(hex(store.get(each.table, each.key))).toBe(hex(expected?.value));
        } else if (each.kind === 'scan') {
          const { start, end, reverse, limit } = each;
          const expected = inTable(rows, each.table).filter(
            (row) => compareBytes(row.key, start) >= 0 && (end === undefined || compareBytes(row.key, end) < 0),
          );
          if (reverse) expected.reverse();
          const options = limit === undefined ? { reverse } : { reverse, limit };
          expect(shown(store.scan(each.table, start, end, options))).toEqual(shown(expected.slice(0, limit)));
          const keys = Array.from(store.scan(each.table, start, end, { ...options, keysOnly: true }), ({ key }) =>
            Buffer.from(key).toString('hex'),
          );
          expect(keys).toEqual(expected.slice(0, limit).map(({ key }) => Buffer.from(key).toString('hex')));
        } else {
          const durable = store.durableIndex;
          if (each.kind === 'close') {
            life.backend.releaseAll();
            await store.flush();
            expect(store.durableIndex).toBe(index);
          } else if (each.isLanded) await life.releaseOne();
          inner = await subject.reopen(inner);
          life = new Life(inner);
          expect(life.store.durableIndex).toBeGreaterThanOrEqual(durable);
          expect(life.store.durableIndex).toBeLessThanOrEqual(index);
          index = life.store.durableIndex;
          rows = snapshots.get(index)!;
          expect(shown(inTable(rowsOf(inner), 'head'))).toEqual(shown(inTable(rows, 'head')));
          expect(shown(inTable(rowsOf(inner), 'log'))).toEqual(shown(inTable(rows, 'log')));
        }
      }
      life.backend.releaseAll();
      await life.store.flush();
      expect(life.causes).toEqual([]);
      expect(life.store.durableIndex).toBe(index);
    });
    await fc.assert(property, { numRuns: 50 });
    await inner.close();
  });
});

function hex(bytes: Uint8Array | undefined): string | undefined {
  return bytes && Buffer.from(bytes).toString('hex');
}

const at = (byte: number): Uint8Array => Uint8Array.of(byte);

describe('BufferedStore', () => {
  test('one commit at a time, and what comes meanwhile goes into the next', async () => {
    const life = new Life(new MemoryBackend());
    for (let index = 1; index <= 3; index++) {
      life.store.put('head', at(index), at(index));
      life.store.applied(index);
      life.runtime.fire();
    }
    expect(life.backend.held).toBe(1);
    await life.releaseOne();
    expect(life.store.durableIndex).toBe(1);
    life.runtime.fire();
    await life.releaseOne();
    expect(life.store.durableIndex).toBe(3);
    expect(life.backend.held).toBe(0);
  });

  test('a flush waits for the entry under way to be whole', () => {
    const life = new Life(new MemoryBackend());
    life.store.put('head', at(1), at(1));
    life.store.applied(1);
    life.store.put('head', at(2), at(2));
    life.runtime.fire();
    expect(life.backend.held).toBe(0);
    life.store.applied(2);
    expect(life.backend.held).toBe(1);
  });

  test('closing does not wait for an entry that was broken off, and commits nothing of it', async () => {
    const inner = new MemoryBackend();
    const life = new Life(inner);
    life.store.put('head', at(1), at(1));
    life.store.applied(1);
    life.runtime.fire();
    life.store.put('head', at(2), at(2));
    life.store.applied(2);
    life.store.put('head', at(3), at(3));
    const closed = life.store.close();
    await life.releaseOne();
    await closed;
    expect([inner.get('head', at(1)), inner.get('head', at(3))]).toEqual([at(1), undefined]);
  });

  test('an index without rows becomes durable too', async () => {
    const life = new Life(new MemoryBackend());
    life.store.applied(7);
    life.runtime.fire();
    await life.releaseOne();
    expect(life.store.durableIndex).toBe(7);
  });

  test('the generation that reaches its bound is flushed without the timer; with the other under way the store is full until that is durable', async () => {
    const life = new Life(new MemoryBackend(), { flushBytes: 1000, generationBytesMax: 2000 });
    life.store.put('head', at(1), new Uint8Array(1000));
    life.store.applied(1);
    expect(life.backend.held).toBe(1);
    expect(life.store.isFull).toBe(false);
    life.store.put('head', at(2), new Uint8Array(2000));
    life.store.applied(2);
    expect(life.store.isFull).toBe(true);
    let calls = 0;
    life.store.onRoom(() => calls++);
    await life.releaseOne();
    expect(life.store.isFull).toBe(false);
    expect(calls).toBe(1);
    await life.releaseOne();
    expect(calls).toBe(1);
    expect(life.store.durableIndex).toBe(2);
  });

  test('with the bounds for it every entry is a commit of its own', async () => {
    const life = new Life(new MemoryBackend(), commitPerEntry);
    for (let index = 1; index <= 3; index++) {
      life.store.put('head', at(index), at(index));
      life.store.applied(index);
      expect(life.store.isFull).toBe(true);
      await life.releaseOne();
      expect(life.store.isFull).toBe(false);
      expect(life.store.durableIndex).toBe(index);
    }
  });

  test('a failed commit is fatal, once; nothing is committed or promised after it', async () => {
    const inner = new MemoryBackend();
    const life = new Life(inner);
    life.store.put('head', at(1), at(1));
    life.store.applied(1);
    const durable = life.store.flush();
    life.store.put('head', at(2), at(2));
    life.store.applied(2);
    const next = life.store.flush();
    const broken = new Error('no space left');
    life.backend.fail(broken);
    await expect(durable).rejects.toThrow('could not be committed');
    await expect(next).rejects.toThrow('could not be committed');
    expect(life.causes.map((cause) => cause.cause)).toEqual([broken]);
    life.store.applied(3);
    life.runtime.fire();
    await expect(life.store.flush()).rejects.toThrow();
    await life.store.close();
    expect(life.causes).toHaveLength(1);
    expect(life.store.isFull).toBe(true);
    expect(life.store.durableIndex).toBe(0);
    expect(inner.count('head') + inner.count('meta')).toBe(0);
  });

  test('damage found by a read is fatal', () => {
    const damage = new StateCorruptionError('rotten');
    class RottenBackend extends MemoryBackend {
      override get(table: Table, key: Uint8Array): Uint8Array | undefined {
        if (key === durableIndexKey) return super.get(table, key);
        throw damage;
      }
      override scan(): Generator<Row, undefined> {
        throw damage;
      }
    }
    for (const read of [
      (store: BufferedStore) => store.get('head', at(1)),
      (store: BufferedStore) => [...store.scan('head', at(1), undefined)],
    ]) {
      const life = new Life(new RottenBackend());
      expect(() => read(life.store)).toThrow(FatalError);
      expect(life.causes).toEqual([damage]);
    }
  });

  test('an entry older than the last is refused', () => {
    const life = new Life(new MemoryBackend());
    life.store.applied(5);
    expect(() => life.store.applied(4)).toThrow('entry 4 was applied after entry 5');
  });

  test('a scan reads no further than it is consumed', () => {
    let reads = 0;
    class CountingBackend extends MemoryBackend {
      override *scan(table: Table, start: Uint8Array, end: Uint8Array | undefined): Generator<Row, undefined> {
        for (const row of super.scan(table, start, end)) {
          reads++;
          yield row;
        }
      }
    }
    const inner = new CountingBackend();
    const rows: Changes = { rows: Array.from({ length: 100 }, (_, i) => ({ table: 'head' as const, key: at(i), value: at(i) })) };
    void inner.commit(rows);
    const { store } = new Life(inner);
    store.delete('head', at(0));
    expect(shown(store.scan('head', at(0), undefined, { limit: 2 }))).toEqual(['01 = 01', '02 = 02']);
    expect(reads).toBeLessThanOrEqual(4);
  });

  test('closing flushes', async () => {
    const inner = new MemoryBackend();
    const life = new Life(inner);
    life.store.put('head', at(1), at(1));
    life.store.applied(1);
    life.backend.releaseAll();
    await life.store.close();
    expect(new Life(inner).store.durableIndex).toBe(1);
    expect(new Life(inner).store.get('head', at(1))).toEqual(at(1));
  });
});

describe('a store whose rows a snapshot replaces', () => {
  /** Commits two rows as the state at index 9, the second one when the test says so. */
  async function twoRows(commit: (changes: Changes) => Promise<void>): Promise<void> {
    await commit({ isReplacement: true, rows: [{ table: 'head', key: at(90), value: at(90) }] });
    await commit({ rows: [{ table: 'head', key: at(91), value: at(91) }] });
  }

  const refused = /waiting for the applied index/;

  function applied(life: Life): void {
    life.store.put('head', at(1), at(1));
    life.store.applied(1);
    life.runtime.fire();
    life.store.put('head', at(2), at(2));
    life.store.applied(2);
  }

  test('waits for the commit under way, drops the rest, and is shut until it was reloaded', async () => {
    const inner = new MemoryBackend();
    const life = new Life(inner);
    applied(life);
    let isFlushed = false;
    void life.store.flush().then(() => {
      isFlushed = true;
    });
    let rooms = 0;
    life.store.onRoom(() => rooms++);
    const replaced = life.store.replace(9, twoRows);
    const isShut = (): void => {
      expect([life.store.isReadable, life.store.isFull, rooms]).toEqual([false, true, 0]);
      expect(() => life.store.get('head', at(1))).toThrow(refused);
      expect(() => life.store.scan('head', at(0), undefined)).toThrow(refused);
      expect(() => life.store.put('head', at(3), at(3))).toThrow('while the state is replaced');
      expect(() => life.store.applied(3)).toThrow('while the state is replaced');
    };
    isShut();
    expect(inner.count('head')).toBe(0);
    await life.releaseOne();
    await eventually('the replacement', () => life.backend.held === 1);
    // The old rows, of which only those that were under way.
    expect([inner.count('head'), life.store.durableIndex, isFlushed]).toEqual([1, 1, false]);
    for (let commits = 0; commits < 2; commits++) {
      expect(() => life.store.reopen(() => {})).toThrow('still being replaced');
      isShut();
      life.backend.releaseOne();
      await eventually('the next commit', () => life.backend.held === 1 || life.store.durableIndex === 9);
    }
    await replaced;
    expect([life.store.durableIndex, isFlushed]).toEqual([9, true]);
    isShut();
    life.store.reopen(() => {
      expect(shown(life.store.scan('head', at(0), undefined))).toEqual(['5a = 5a', '5b = 5b']);
      expect(rooms).toBe(0);
    });
    expect([life.store.isReadable, life.store.isFull, rooms]).toEqual([true, false, 1]);
    life.store.put('head', at(10), at(10));
    life.store.applied(10);
    life.backend.releaseAll();
    await life.store.close();
    expect(inner.count('head')).toBe(3);
  });

  test('keeps what the member remembers for itself, also what it learns meanwhile', async () => {
    const inner = new MemoryBackend();
    const life = new Life(inner);
    applied(life);
    life.store.put('local', at(1), at(1));
    life.backend.releaseAll();
    await life.store.replace(9, async (commit) => {
      life.store.put('local', at(2), at(2));
      await twoRows(commit);
    });
    expect(life.store.get('local', at(1))).toEqual(at(1));
    life.store.reopen(() => {});
    life.store.applied(10);
    await life.store.close();
    expect(shown(inner.scan('local', at(0), undefined))).toEqual(['01 = 01', '02 = 02']);
  });

  test('that is closed before anybody has read it is closed all the same', async () => {
    const inner = new MemoryBackend();
    const life = new Life(inner);
    life.backend.releaseAll();
    await life.store.replace(9, twoRows);
    life.store.put('local', at(1), at(1));
    await life.store.close();
    expect(inner.count('head')).toBe(2);
  });

  test('is not replaced by an older state, in the middle of an entry, or twice at once', async () => {
    const life = new Life(new MemoryBackend());
    applied(life);
    await expect(life.store.replace(1, twoRows)).rejects.toThrow('cannot be replaced by that at 1');
    life.store.put('head', at(3), at(3));
    await expect(life.store.replace(9, twoRows)).rejects.toThrow('middle of an entry');
    life.store.applied(3);
    const replaced = life.store.replace(9, twoRows);
    await expect(life.store.replace(9, twoRows)).rejects.toThrow('cannot be replaced now');
    life.backend.releaseAll();
    await replaced;
  });

  test('that fails half way is the end of the member', async () => {
    const life = new Life(new MemoryBackend());
    life.backend.releaseAll();
    applied(life);
    const broken = new Error('no such file');
    const replaced = life.store.replace(9, async (commit) => {
      await commit({ isReplacement: true, rows: [] });
      throw broken;
    });
    const flushed = life.store.flush();
    await expect(replaced).rejects.toThrow('no such file');
    await expect(flushed).rejects.toThrow('could not be replaced');
    expect(life.causes.map(({ cause }) => cause)).toEqual([broken]);
    expect(() => life.store.get('head', at(1))).toThrow(refused);
    await life.store.close();
  });

  test('that is closed meanwhile leaves the rest to the next start, and nobody fails of it', async () => {
    const inner = new MemoryBackend();
    const life = new Life(inner);
    const replaced = life.store.replace(9, twoRows).catch((error: unknown) => error);
    await eventually('the first commit', () => life.backend.held === 1);
    const closed = life.store.close();
    life.backend.releaseAll();
    await closed;
    expect(String(await replaced)).toContain('closed while its state was replaced');
    expect([inner.count('head'), life.causes.length]).toEqual([1, 0]);
  });
});
