import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Entry } from '@conclave/raft';
import { VirtualRuntime } from '@conclave/testing';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { NodeDisk } from '../node-disk.ts';
import { type OpenedWal, openWal } from './open.ts';

const identity = { clusterId: 1n, memberId: 2n };
const segmentBytes = { first: 16 * 1024, max: 64 * 1024 };
let around: string;

beforeEach(() => {
  around = fs.mkdtempSync(join(tmpdir(), 'conclave-wal-'));
});

afterEach(() => fs.rmSync(around, { recursive: true, force: true }));

describe.each(['inline', 'worker'] as const)('the log on a real disk, flushing %s', (flush) => {
  let disk: NodeDisk;

  beforeEach(() => {
    disk = new NodeDisk({ flush });
  });

  afterEach(() => disk.close());

  const open = (appliedIndex: number): Promise<OpenedWal> => {
    const fatal = (cause: Error): never => {
      throw cause;
    };
    return openWal({ disk, dir: join(around, 'wal'), runtime: new VirtualRuntime(), fatal, identity, appliedIndex, segmentBytes });
  };

  test('is found again after every restart, over segments that are made, recycled and removed', async () => {
    const inodes = new Map<number, Set<string>>();
    let index = 0;
    for (let restart = 0; restart < 5; restart++) {
      const { wal, recovered } = await open(Math.max(0, index - 10));
      expect(recovered.entries.map((entry) => [entry.index, Buffer.from(entry.data).toString()])).toEqual(
        expectedEntries(Math.max(1, index - 9), index),
      );
      for (const until = index + 200; index < until; ) {
        index++;
        await new Promise<void>((resolve) => {
          wal.append({ entries: [entry(index)], hardState: { term: 1, vote: 2n, commit: index } }, resolve);
        });
        wal.release(index - 10);
        // A turn of the loop, in which the next segment is prepared a little further.
        await new VirtualRuntime().advance(0);
        if (index % 5 === 0) noteInodes(join(around, 'wal'), inodes);
      }
      await wal.close();
    }
    expect((await open(index)).recovered.hardState).toEqual({ term: 1, vote: 2n, commit: 1000 });
    const recycled = [...inodes.values()].filter((names) => [...names].filter((name) => name.endsWith('.wal')).length > 1);
    expect(recycled.length).toBeGreaterThan(0);
    expect(fs.readdirSync(join(around, 'wal')).length).toBeLessThanOrEqual(4);
    expect((fs.statSync(join(around, 'wal')).mode & 0o777).toString(8)).toBe('700');
  });
});

function entry(index: number): Entry {
  return { index, term: 1, type: 'normal', data: Buffer.from(`value ${index}`) };
}

function expectedEntries(first: number, last: number): [number, string][] {
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, at) => [first + at, `value ${first + at}`]);
}

/** Which names each file was seen under. */
function noteInodes(dir: string, inodes: Map<number, Set<string>>): void {
  for (const name of fs.readdirSync(dir)) {
    // It may be renamed between the two looks.
    const found = fs.statSync(join(dir, name), { throwIfNoEntry: false });
    if (found === undefined) continue;
    const names = inodes.get(found.ino) ?? new Set();
    inodes.set(found.ino, names.add(name));
  }
}
