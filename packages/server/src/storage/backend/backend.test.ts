import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemRuntime } from '@conclave/wire';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Backend, type BackendView, type Change, type Row, type Table, tables } from './backend.ts';
import { compareBytes } from './bytes.ts';
import { LmdbBackend } from './lmdb.ts';
import { filedKeyBytes, plainKeyBytesMax, sha256 } from './long-keys.ts';
import { MemoryBackend } from './memory.ts';

/** Keys that try the boundaries: few different bytes, and lengths around those at which a key is filed, on shared prefixes. */
const byte = fc.constantFrom(0, 1, 0x7f, 0x80, 0xfe, 0xff);
const shortKey = fc.array(byte, { minLength: 1, maxLength: 3 }).map((bytes) => Uint8Array.from(bytes));
const longKey = fc
  .tuple(
    fc.constantFrom(
      plainKeyBytesMax - 1,
      plainKeyBytesMax,
      plainKeyBytesMax + 1,
      filedKeyBytes - 1,
      filedKeyBytes,
      filedKeyBytes + 1,
      5000,
    ),
    byte,
    fc.array(byte, { maxLength: 3 }),
  )
  .map(([length, fill, tail]) => Uint8Array.of(...new Uint8Array(length).fill(fill), ...tail));
const key = fc.oneof({ weight: 3, arbitrary: shortKey }, { weight: 2, arbitrary: longKey });
const bound = fc.oneof({ weight: 8, arbitrary: key }, { weight: 1, arbitrary: fc.constant(new Uint8Array(0)) });
const table = fc.constantFrom<Table>('head', 'past', 'local');
const value = fc.oneof(
  { weight: 4, arbitrary: fc.uint8Array({ maxLength: 20 }) },
  { weight: 1, arbitrary: fc.tuple(fc.nat(70_000), fc.nat(255)).map(([size, fill]) => new Uint8Array(size).fill(fill)) },
);
const change = fc.record({ table, key, value: fc.option(value, { nil: undefined, freq: 3 }) });
const rarely = fc.nat(9).map((n) => n === 0);
const scan = fc.record({
  table,
  start: bound,
  end: fc.option(bound, { nil: undefined }),
  reverse: fc.boolean(),
  limit: fc.option(fc.nat(6), { nil: undefined }),
});

class Model {
  readonly rows: Map<Table, Row[]>;

  constructor(rows: ReadonlyMap<Table, Row[]> = new Map()) {
    this.rows = new Map(tables.map((name) => [name, rows.get(name) ?? []]));
  }

  copy(): Model {
    return new Model(this.rows);
  }

  /** All but what a member remembers for itself. */
  clear(): void {
    for (const name of tables) if (name !== 'local') this.rows.set(name, []);
  }

  write({ table, key, value }: Change): void {
    const others = this.rows.get(table)!.filter((row) => compareBytes(row.key, key) !== 0);
    if (value !== undefined) others.push({ key, value });
    this.rows.set(
      table,
      others.sort((a, b) => Buffer.compare(a.key, b.key)),
    );
  }

  scan(table: Table, start: Uint8Array, end: Uint8Array | undefined, reverse: boolean, limit: number | undefined): Row[] {
    const rows = this.rows
      .get(table)!
      .filter(({ key }) => Buffer.compare(key, start) >= 0 && (end === undefined || Buffer.compare(key, end) < 0));
    if (reverse) rows.reverse();
    return rows.slice(0, limit);
  }
}

function shown(rows: Iterable<Row>): string[] {
  return Array.from(rows, ({ key, value }) => `${digestOf(key)} = ${digestOf(value)}`);
}

/** Short enough for a failing case to be read. */
function digestOf(bytes: Uint8Array): string {
  return bytes.length < 12 ? Buffer.from(bytes).toString('hex') : `${bytes.length}:${Buffer.from(sha256(bytes)).toString('hex', 0, 8)}`;
}

/** What a view shows: everything, or one scan and the rows of it. */
function expectSame(
  view: BackendView,
  model: Model,
  asked: { table: Table; start: Uint8Array; end: Uint8Array | undefined; reverse: boolean; limit: number | undefined } | undefined,
): void {
  for (const name of tables) {
    expect(shown(view.scan(name, new Uint8Array(0), undefined))).toEqual(shown(model.rows.get(name)!));
  }
  if (asked === undefined) return;
  const { table: name, start, end, reverse, limit } = asked;
  const expected = model.scan(name, start, end, reverse, limit);
  expect(shown(view.scan(name, start, end, limit === undefined ? { reverse } : { reverse, limit }))).toEqual(shown(expected));
  for (const row of expected) expect(digestOf(view.get(name, row.key)!)).toBe(digestOf(row.value));
  expect(view.get(name, start) !== undefined).toBe(model.rows.get(name)!.some(({ key }) => compareBytes(key, start) === 0));
}

interface Subject {
  open(): Backend;
  reopen(backend: Backend): Promise<Backend>;
}

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'conclave-backend-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

const lmdbSubject = (name: string, digest = sha256): Subject => ({
  open: () => new LmdbBackend({ path: join(folder, name), runtime: systemRuntime(), mapBytes: 1 << 17, digest }),
  async reopen(backend) {
    await backend.close();
    return this.open();
  },
});

/** All long keys of one first and one last byte collide. */
const weakDigest = (key: Uint8Array): Uint8Array => new Uint8Array(32).fill(key[0]! ^ key[key.length - 1]!);

describe.each<[string, Subject]>([
  ['the in-memory twin', { open: () => new MemoryBackend(), reopen: async (backend) => backend }],
  ['LMDB', lmdbSubject('sound.d')],
  ['LMDB with a digest that collides', lmdbSubject('weak.d', weakDigest)],
])('%s', (_, subject) => {
  test('holds what a sorted list of rows holds: commits, scans in both directions within bounds and limits, reopening', async () => {
    let backend = subject.open();
    const step = fc.oneof(
      {
        weight: 4,
        arbitrary: fc.record({ kind: fc.constant('commit' as const), rows: fc.array(change, { maxLength: 12 }), isReplacement: rarely }),
      },
      { weight: 6, arbitrary: fc.record({ kind: fc.constant('scan' as const), scan }) },
      { weight: 4, arbitrary: fc.record({ kind: fc.constant('get' as const), table, key }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('reopen' as const) }) },
      { weight: 2, arbitrary: fc.record({ kind: fc.constant('view' as const) }) },
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('close' as const), nth: fc.nat(2) }) },
    );
    const property = fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
      const model = new Model();
      let views: { readonly view: BackendView; readonly model: Model }[] = [];
      for (const name of tables)
        await backend.commit({
          rows: [...backend.scan(name, new Uint8Array(0), undefined)].map(({ key }) => ({ table: name, key, value: undefined })),
        });
      for (const each of steps) {
        if (each.kind === 'commit') {
          if (each.isReplacement) model.clear();
          for (const row of each.rows) model.write(row);
          await backend.commit({ rows: each.rows, isReplacement: each.isReplacement });
        } else if (each.kind === 'scan') {
          const { table, start, end, reverse, limit } = each.scan;
          const options = limit === undefined ? { reverse } : { reverse, limit };
          const expected = model.scan(table, start, end, reverse, limit);
          expect(shown(backend.scan(table, start, end, options))).toEqual(shown(expected));
          const keys = Array.from(backend.scan(table, start, end, { ...options, keysOnly: true }), ({ key }) =>
            Buffer.from(key).toString('hex'),
          );
          expect(keys).toEqual(expected.map(({ key }) => Buffer.from(key).toString('hex')));
        } else if (each.kind === 'get') {
          const found = backend.get(each.table, each.key);
          const expected = model.rows.get(each.table)!.find((row) => compareBytes(row.key, each.key) === 0)?.value;
          expect(found && digestOf(found)).toBe(expected && digestOf(expected));
        } else if (each.kind === 'view') {
          views.push({ view: backend.view(), model: model.copy() });
        } else if (each.kind === 'close') {
          for (const { view } of views.splice(each.nth, 1)) {
            view.close();
            view.close();
            expect(() => [...view.scan('head', new Uint8Array(0), undefined)]).toThrow('the view is closed');
          }
        } else {
          for (const { view } of views) view.close();
          views = [];
          backend = await subject.reopen(backend);
        }
        for (const { view, model: then } of views) expectSame(view, then, each.kind === 'scan' ? each.scan : undefined);
        for (const name of tables) expect(backend.count(name)).toBe(model.rows.get(name)!.length);
      }
    });
    await fc.assert(property, { numRuns: 60 });
    await backend.close();
  });

  test('keys of 1,978 B, 1,979 B, 32 KiB and 1 MiB with shared prefixes come back whole and in order', async () => {
    const backend = subject.open();
    const lengths = [1, 1944, 1945, 1946, 1977, 1978, 1979, 32 << 10, (32 << 10) + 1, 1 << 20];
    const keys = lengths.flatMap((length) => [0x61, 0x00, 0xff].map((last) => new Uint8Array(length).fill(0x61).fill(last, -1)));
    const rows = keys.map((key) => ({
      table: 'leaseKeys' as const,
      key,
      value: Uint8Array.from(Buffer.from(`${key.length}/${key.at(-1)}`)),
    }));
    await backend.commit({ rows });
    const sorted = [...rows].sort((a, b) => Buffer.compare(a.key, b.key));
    expect(shown(backend.scan('leaseKeys', new Uint8Array(0), undefined))).toEqual(shown(sorted));
    expect(shown(backend.scan('leaseKeys', new Uint8Array(0), undefined, { reverse: true }))).toEqual(shown([...sorted].reverse()));
    for (const [at, row] of sorted.entries()) {
      expect(Buffer.compare(backend.get('leaseKeys', row.key)!, row.value)).toBe(0);
      expect(shown(backend.scan('leaseKeys', row.key, undefined, { limit: 2 }))).toEqual(shown(sorted.slice(at, at + 2)));
      expect(shown(backend.scan('leaseKeys', new Uint8Array(0), row.key, { reverse: true, limit: 2 }))).toEqual(
        shown(sorted.slice(0, at).reverse().slice(0, 2)),
      );
    }
    await backend.commit({ rows: rows.map((row) => ({ ...row, value: undefined })) });
    expect(backend.count('leaseKeys')).toBe(0);
    await backend.close();
  });

  test('what was read stays as it was after later reads', async () => {
    const backend = subject.open();
    const rows = Array.from({ length: 50 }, (_, i) => ({
      table: 'log' as const,
      key: Uint8Array.of(i),
      value: new Uint8Array(i * 100).fill(i),
    }));
    await backend.commit({ rows });
    const gets = rows.map((row) => backend.get('log', row.key)!);
    const scanned = [...backend.scan('log', new Uint8Array(0), undefined)];
    for (const [i, row] of rows.entries()) {
      expect(Buffer.compare(gets[i]!, row.value)).toBe(0);
      expect(Buffer.compare(scanned[i]!.value, row.value)).toBe(0);
    }
    await backend.close();
  });

  test('the size is above zero when empty and grows with what is stored', async () => {
    const backend = subject.open();
    const before = backend.size();
    expect(before.inUse).toBeGreaterThan(0);
    expect(before.total).toBeGreaterThanOrEqual(before.inUse);
    await backend.commit({ rows: [{ table: 'log', key: Uint8Array.of(1, 2), value: new Uint8Array(3 << 20) }] });
    expect(backend.size().inUse).toBeGreaterThan(before.inUse + (2 << 20));
    await backend.commit({ rows: [{ table: 'log', key: Uint8Array.of(1, 2), value: undefined }] });
    expect(backend.size().inUse).toBeLessThan(before.inUse + (1 << 20));
    await backend.close();
  });

  test('a row without a key is refused', async () => {
    const backend = subject.open();
    await expect(backend.commit({ rows: [{ table: 'log', key: new Uint8Array(0), value: new Uint8Array(1) }] })).rejects.toThrow();
    await backend.close();
  });
});

test('the in-memory twin does not keep the message of which a row is a part', async () => {
  const backend = new MemoryBackend();
  const message = new Uint8Array(100_000);
  await backend.commit({ rows: [{ table: 'head', key: message.subarray(10, 20), value: message.subarray(20, 40) }] });
  for (const { key, value } of backend.scan('head', new Uint8Array(0), undefined)) {
    expect(key.buffer.byteLength).toBeLessThan(200);
    expect(value.buffer.byteLength).toBeLessThan(200);
  }
});
