import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Entry } from '@conclave/raft';
import { VirtualRuntime } from '@conclave/testing';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { exitCodeOf } from '../../exit-code.ts';
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

const mayMount = process.platform === 'linux' && process.getuid?.() === 0;

describe.each(['inline', 'worker'] as const)('the log on a disk that fills up, flushing %s', (flush) => {
  test.skipIf(!mayMount)('ends at the first write that does not fit, and holds what it had said was durable', async () => {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=512k', 'tmpfs', around]);
    const disk = new NodeDisk({ flush });
    try {
      const dir = join(around, 'wal');
      const causes: Error[] = [];
      let failed = (): void => {};
      const failure = new Promise<void>((resolve) => {
        failed = resolve;
      });
      const fatal = (cause: Error): never => {
        causes.push(cause);
        failed();
        throw cause;
      };
      const open = (): Promise<OpenedWal> =>
        openWal({ disk, dir, runtime: new VirtualRuntime(), fatal, identity, appliedIndex: 0, segmentBytes });
      const { wal } = await open();
      let durable = 0;
      for (let index = 1; causes.length === 0; index++) {
        const data = new Uint8Array(3000).fill(index);
        const append = (done: () => void): void => {
          // It throws what ended it, where that happens at once.
          try {
            wal.append({ entries: [{ index, term: 1, type: 'normal', data }], hardState: undefined }, done);
          } catch {
            failed();
          }
        };
        await Promise.race([failure, new Promise<void>((resolve) => append(resolve)).then(() => (durable = index))]);
      }
      expect(causes).toEqual([expect.objectContaining({ code: 'ENOSPC' })]);
      expect(exitCodeOf(causes[0])).toBe(5);
      expect(durable).toBeGreaterThan(50);
      const lost: number[] = [];
      expect(() => wal.append({ entries: [], hardState: { term: 1, vote: 2n, commit: durable } }, () => lost.push(1))).toThrow();
      await wal.close();
      execFileSync('mount', ['-o', 'remount,size=4m', around]);
      const { wal: after, recovered } = await open();
      expect(recovered.entries.length).toBeGreaterThanOrEqual(durable);
      expect(recovered.entries.length).toBeLessThanOrEqual(durable + 1);
      expect(recovered.entries.every(({ index, data }) => data.length === 3000 && data[0] === index % 256)).toBe(true);
      await after.close();
      expect([lost, causes.length]).toEqual([[], 1]);
    } finally {
      await disk.close();
      execFileSync('umount', ['--lazy', around]);
    }
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
