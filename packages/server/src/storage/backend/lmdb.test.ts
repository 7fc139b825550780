import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemRuntime } from '@conclave/wire';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Change, Row } from './backend.ts';
import { LmdbBackend } from './lmdb.ts';
import { StateCorruptionError } from './state-corruption-error.ts';

let path: string;
beforeEach(() => {
  path = mkdtempSync(join(tmpdir(), 'conclave-lmdb.'));
});
afterEach(() => rmSync(path, { recursive: true }));

const openBackend = (mapBytes = 1 << 20): LmdbBackend => new LmdbBackend({ path, runtime: systemRuntime(), mapBytes });
const fileOf = (): string => join(path, 'data.mdb');
const emptyKey = new Uint8Array(0);

function key(number: number): Uint8Array {
  const bytes = Buffer.alloc(8);
  bytes.writeUInt32BE(number, 4);
  return bytes;
}

function rowsOf(count: number, size: number): Change[] {
  return Array.from({ length: count }, (_, i) => ({ table: 'head', key: key(i), value: new Uint8Array(size).fill(i) }));
}

async function fill(changes: Change[]): Promise<void> {
  const backend = openBackend();
  await backend.commit({ rows: changes });
  await backend.close();
}

/** Expects `act` to throw the error of damage. */
function expectCorrupt(act: () => unknown): void {
  let caught: unknown;
  try {
    act();
  } catch (error) {
    caught = error;
  }
  expect(caught).toBeInstanceOf(StateCorruptionError);
  expect(caught).toMatchObject({ code: 'state-corrupt' });
}

describe('damage to the file', () => {
  let sound: Buffer | undefined;
  const soundFile = async (): Promise<Buffer> => {
    await fill(rowsOf(1000, 2000));
    return readFileSync(fileOf());
  };

  const cases: [string, (file: Buffer) => Uint8Array][] = [
    ['is a text', () => Buffer.from('not a database\n'.repeat(1000))],
    ['is all zero', (file) => Buffer.alloc(file.length)],
    ['has lost its first header', (file) => file.fill(0, 0, 4096)],
    ['has lost its second header', (file) => file.fill(0, 4096, 8192)],
    ['ends within the first header', (file) => file.subarray(0, 100)],
    ['ends after the first header', (file) => file.subarray(0, 4096)],
    ['ends after the headers', (file) => file.subarray(0, 8192)],
    ['is cut in half', (file) => file.subarray(0, file.length >> 1)],
    ['has a page size that is none', (file) => file.fill(3, 48, 52)],
    ['has nothing but zeros behind its headers', (file) => file.fill(0, 8192)],
  ];

  test.each(cases)('a file that %s is refused at open with a code', async (_, damage) => {
    sound ??= await soundFile();
    writeFileSync(fileOf(), damage(Buffer.from(sound)));
    expectCorrupt(() => openBackend());
  });

  test('an empty file is what a crash in the first open leaves: a new store', async () => {
    writeFileSync(fileOf(), '');
    const backend = openBackend();
    expect(backend.count('head')).toBe(0);
    await backend.close();
  });

  test.each([10, 100_000])('a changed byte in a stored value of %i bytes is found by every read of it', async (size) => {
    const marked = Buffer.alloc(size, 'unmistakable');
    await fill([
      ...rowsOf(10, 50),
      { table: 'log', key: key(1), value: marked },
      { table: 'log', key: new Uint8Array(3000), value: marked },
    ]);
    const file = readFileSync(fileOf());
    for (let at = file.indexOf(marked); at >= 0; at = file.indexOf(marked, at + 1)) file[at + (size >> 1)]! ^= 0x01;
    writeFileSync(fileOf(), file);
    const backend = openBackend();
    expectCorrupt(() => backend.get('log', key(1)));
    expectCorrupt(() => backend.get('log', new Uint8Array(3000)));
    expectCorrupt(() => [...backend.scan('log', emptyKey, undefined)]);
    expect(backend.get('head', key(1))).toHaveLength(50);
    await backend.close();
  });
});

test('the file is for its owner only, and a dot in the name of the folder is nothing special', async () => {
  const folder = join(path, 'node.etcd');
  mkdirSync(folder);
  const backend = new LmdbBackend({ path: folder, runtime: systemRuntime() });
  await backend.close();
  expect(statSync(join(folder, 'data.mdb')).mode & 0o077).toBe(0);
});

test('the file outgrows its map while it is read', async () => {
  const backend = openBackend(1 << 17);
  const value = new Uint8Array(4000).fill(7);
  for (let round = 0; round < 20; round++) {
    const rows = Array.from({ length: 300 }, (_, i): Change => ({ table: 'log', key: key(round * 300 + i), value }));
    const committed = backend.commit({ rows });
    let isDone = false;
    void committed.then(() => {
      isDone = true;
    });
    while (!isDone) {
      const found = [...backend.scan('log', emptyKey, undefined, { limit: 50, reverse: true })];
      expect(found.every((row) => Buffer.compare(row.value, value) === 0)).toBe(true);
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(backend.count('log')).toBe((round + 1) * 300);
  }
  expect(backend.size().total).toBeGreaterThan(20 << 20);
  await backend.close();
});

test('a commit is visible in the turn in which it resolves, also to a turn that has read before', async () => {
  const backend = openBackend();
  for (let i = 0; i < 50; i++) {
    const committed = backend.commit({ rows: [{ table: 'head', key: key(1), value: Uint8Array.of(i) }] });
    let reads = 0;
    const readOn = (): void => {
      backend.get('head', key(1));
      if (reads++ < 5) setImmediate(readOn);
    };
    readOn();
    await committed;
    expect(backend.get('head', key(1))).toEqual(Buffer.of(i));
  }
  await backend.close();
});

test('a big commit is handed over in slices and becomes visible at once', async () => {
  const backend = openBackend();
  let turns = 0;
  let isDone = false;
  const seen = new Set<number>();
  const turn = (): void => {
    if (isDone) return;
    turns++;
    seen.add(backend.count('head'));
    setImmediate(turn);
  };
  setImmediate(turn);
  await backend.commit({ rows: rowsOf(20_000, 100) });
  isDone = true;
  expect(turns).toBeGreaterThanOrEqual(20);
  expect([...seen].filter((count) => count !== 0 && count !== 20_000)).toEqual([]);
  await backend.close();
});

test('a second commit before the first is done is refused', async () => {
  const backend = openBackend();
  const first = backend.commit({ rows: rowsOf(10, 10) });
  await expect(backend.commit({ rows: [] })).rejects.toThrow('under way');
  await first;
  await backend.close();
});

test('after a commit that could not be carried out there is no other', async () => {
  const backend = openBackend();
  const broken = function* (): Generator<Change> {
    yield* rowsOf(5000, 10);
    throw new Error('the rows ended early');
  };
  await expect(backend.commit({ rows: broken() })).rejects.toThrow('handed to the writer');
  await expect(backend.commit({ rows: rowsOf(1, 1) })).rejects.toThrow('earlier commit');
  expect(backend.count('head')).toBe(0);
  await backend.close();
  const reopened = openBackend();
  expect(reopened.count('head')).toBe(0);
  await reopened.close();
});

test('a scan that was left half way stops the next commit, a returned one does not', async () => {
  const backend = openBackend();
  await backend.commit({ rows: rowsOf(10, 10) });
  const scan: Iterator<Row> = backend.scan('head', emptyKey, undefined)[Symbol.iterator]();
  scan.next();
  await expect(backend.commit({ rows: [] })).rejects.toThrow('a scan of head');
  scan.return?.();
  for (const _ of backend.scan('head', emptyKey, undefined)) break;
  await backend.commit({ rows: [] });
  await backend.close();
});

test('a view keeps pages from being used again for as long as it is open, and no longer', async () => {
  const backend = openBackend();
  const rewrite = async (times: number): Promise<number> => {
    for (let time = 0; time < times; time++) await backend.commit({ rows: rowsOf(100, 1000) });
    return backend.size().total;
  };
  const before = await rewrite(10);
  for (let time = 0; time < 20; time++) {
    const view = backend.view();
    // Left half way, as a reader of chunks does, in this turn and in a later one.
    for (const _ of view.scan('head', emptyKey, undefined)) break;
    await rewrite(1);
    for (const _ of view.scan('head', emptyKey, undefined)) break;
    view.close();
  }
  expect(await rewrite(10)).toBeLessThan(1.5 * before);
  const held = backend.view();
  expect(await rewrite(20)).toBeGreaterThan(3 * before);
  held.close();
  const after = await rewrite(2);
  expect(await rewrite(20)).toBeLessThan(1.1 * after);
  await backend.close();
});

test('closing closes the views that are open', async () => {
  const backend = openBackend();
  await backend.commit({ rows: rowsOf(10, 10) });
  const view = backend.view();
  await backend.close();
  expect(() => [...view.scan('head', emptyKey, undefined)]).toThrow('the view is closed');
});

test('closing waits for the commit under way', async () => {
  const backend = openBackend();
  const committed = backend.commit({ rows: rowsOf(3000, 100) });
  const closed = backend.close();
  await committed;
  await closed;
  const reopened = openBackend();
  expect(reopened.count('head')).toBe(3000);
  await reopened.close();
});

const mayMount = process.platform === 'linux' && process.getuid?.() === 0;

describe('a full disk', () => {
  test.skipIf(!mayMount)('is told as what it is, although the engine calls it a broken one', async () => {
    const mounted = join(path, 'small');
    mkdirSync(mounted);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', mounted]);
    try {
      const backend = new LmdbBackend({ path: join(mounted, 'state'), runtime: systemRuntime() });
      await expect(backend.commit({ rows: rowsOf(1000, 4000) })).rejects.toMatchObject({ code: 'ENOSPC' });
      await backend.close();
    } finally {
      execFileSync('umount', ['--lazy', mounted]);
    }
  });
});
