import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually, StalledBackend } from '@conclave/testkit';
import { systemRuntime } from '@conclave/wire';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Backend } from './backend/backend.ts';
import { BufferedStore } from './backend/buffered-store.ts';
import { LmdbBackend } from './backend/lmdb.ts';
import { MemoryBackend } from './backend/memory.ts';
import { countStart, StoredLocalMemory } from './local-memory.ts';

const runtime = systemRuntime();
const fatal = (cause: Error): never => {
  throw cause;
};

let path: string;
beforeEach(() => {
  path = mkdtempSync(join(tmpdir(), 'conclave-memory-'));
});
afterEach(() => rmSync(path, { recursive: true }));

const lasting = new MemoryBackend();
const engines: [string, () => Backend][] = [
  ['the twin', () => lasting],
  ['LMDB', () => new LmdbBackend({ path, runtime })],
];

describe.each(engines)('what a member remembers in %s', (_, open) => {
  test('is how often it was started, and the marks of its peers as far as they were committed', async () => {
    const first = open();
    const memory = new StoredLocalMemory(new BufferedStore({ backend: first, runtime, fatal }), await countStart(first));
    expect([memory.incarnation, memory.peer(7n)]).toEqual([1, undefined]);
    memory.notePeer(7n, { incarnation: 2, index: 2 ** 40 });
    expect(memory.peer(7n)).toEqual({ incarnation: 2, index: 2 ** 40 });
    // It dies: nothing was applied, so nothing was committed.
    await first.close();

    const second = open();
    const store = new BufferedStore({ backend: second, runtime, fatal });
    const later = new StoredLocalMemory(store, await countStart(second));
    expect([later.incarnation, later.peer(7n)]).toEqual([2, undefined]);
    later.notePeer(0xffffffffffffffffn, { incarnation: 1, index: 5 });
    later.notePeer(0xffffffffffffffffn, { incarnation: 1, index: 6 });
    store.put('head', Uint8Array.of(1), Uint8Array.of(1));
    store.applied(1);
    await store.close();

    const third = open();
    const last = new StoredLocalMemory(new BufferedStore({ backend: third, runtime, fatal }), await countStart(third));
    expect([last.incarnation, last.peer(0xffffffffffffffffn), last.peer(7n)]).toEqual([3, { incarnation: 1, index: 6 }, undefined]);
    await third.close();
  });
});

test('a start that is not durable is none', async () => {
  const inner = new MemoryBackend();
  const stalled = new StalledBackend(inner);
  let incarnation: number | undefined;
  const counted = countStart(stalled).then((count) => {
    incarnation = count;
  });
  await new Promise((resolve) => setImmediate(resolve));
  expect(incarnation).toBeUndefined();
  stalled.releaseAll();
  await counted;
  expect(incarnation).toBe(1);
  const broken = new StalledBackend(inner);
  broken.fail(new Error('no space left'));
  await expect(countStart(broken)).rejects.toThrow('no space left');
  expect(await countStart(inner)).toBe(2);
});

test('a mark that comes while an entry is applied does not cut the entry in two', async () => {
  const backend = new MemoryBackend();
  const store = new BufferedStore({ backend, runtime, fatal });
  const memory = new StoredLocalMemory(store, 1);
  store.put('head', Uint8Array.of(1), Uint8Array.of(1));
  memory.notePeer(7n, { incarnation: 1, index: 1 });
  store.applied(1);
  memory.notePeer(8n, { incarnation: 1, index: 1 });
  await store.flush();
  expect([backend.count('head'), backend.count('local')]).toEqual([1, 2]);
  await store.close();
});

test('a mark becomes durable without an entry to go along with', async () => {
  const backend = new MemoryBackend();
  const store = new BufferedStore({ backend, runtime, fatal, bounds: { flushDelayMs: 1 } });
  new StoredLocalMemory(store, 1).notePeer(7n, { incarnation: 1, index: 1 });
  await eventually('the mark', () => backend.count('local') === 1);
  new StoredLocalMemory(store, 1).notePeer(8n, { incarnation: 1, index: 1 });
  await store.close();
  expect(backend.count('local')).toBe(2);
});
