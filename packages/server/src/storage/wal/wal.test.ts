import type { Entry, HardState } from '@conclave/raft';
import { VirtualRuntime } from '@conclave/testing';
import { SimulatedDisk, type SimulatedDiskOptions } from '@conclave/testing/simulation';
import { describe, expect, test } from 'vitest';
import type { LogBatch } from '../../replica/ports.ts';
import { StorageError } from '../storage-error.ts';
import { type OpenedWal, type OpenWalOptions, openWal } from './open.ts';
import type { Wal } from './wal.ts';

const identity = { clusterId: 0xcdf818194e3a8c32n, memberId: 0x8e9e05c52164694dn };
const dir = '/wal';

describe('the log', () => {
  test('what was appended is there again, with the newest hard state and nothing below the applied index', async () => {
    const disk = new SimulatedDisk();
    const { wal, recovered } = await open(disk);
    expect(recovered).toEqual({ identity, hardState: undefined, entries: [], firstIndex: 1, snapshot: undefined });
    await append(wal, { entries: entries(1, 3, 1), hardState: hardState(1, 0) });
    await append(wal, { entries: [{ ...entry(4, 2), type: 'confChange' }], hardState: hardState(2, 3) });
    await wal.close();
    const again = await open(disk, { appliedIndex: 2, identity: undefined });
    expect(again.recovered).toEqual({
      identity,
      hardState: hardState(2, 3),
      entries: [entry(3, 1), { ...entry(4, 2), type: 'confChange' }],
      firstIndex: 3,
      snapshot: undefined,
    });
  });

  test('a batch appended at an index that was appended before replaces everything from there', async () => {
    const disk = new SimulatedDisk();
    const { wal } = await open(disk);
    await append(wal, { entries: entries(1, 5, 1), hardState: hardState(1, 2) });
    await append(wal, { entries: entries(3, 4, 2), hardState: hardState(2, 2) });
    const { recovered } = await reopen(disk);
    expect(recovered.entries).toEqual([...entries(1, 2, 1), ...entries(3, 4, 2)]);
  });

  test('durable runs before append returns on a disk that flushes at once', async () => {
    const { wal } = await open(new SimulatedDisk());
    const order: string[] = [];
    wal.append({ entries: entries(1, 1, 1), hardState: undefined }, () => order.push('durable'));
    order.push('returned');
    expect(order).toEqual(['durable', 'returned']);
  });

  test('what is appended during a flush goes into the next one, in one write and one flush', async () => {
    const runtime = new VirtualRuntime();
    const operations: string[] = [];
    const options = { runtime, latencyMs: () => 1, onOperation: ({ kind }: { kind: string }) => operations.push(kind) };
    const opened = open(new SimulatedDisk(options), { runtime });
    const { wal } = await runtime.run(opened);
    operations.length = 0;
    const told: number[] = [];
    for (let index = 1; index <= 10; index++) {
      wal.append({ entries: entries(index, index, 1), hardState: undefined }, () => told.push(index));
    }
    await runtime.runUntil(() => told.length === 10);
    expect(told).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    expect(operations).toEqual(['write', 'sync', 'write', 'sync']);
  });

  test('callbacks run in the order of their batches even when one of them appends', async () => {
    const { wal } = await open(new SimulatedDisk());
    const told: number[] = [];
    const appendOne = (index: number, then: () => void = () => {}): void =>
      wal.append({ entries: entries(index, index, 1), hardState: undefined }, () => {
        told.push(index);
        then();
      });
    appendOne(1, () => {
      appendOne(2, () => appendOne(4));
      appendOne(3);
      told.push(-1);
    });
    expect(told).toEqual([1, -1, 2, 3, 4]);
  });

  test('a log of another member is refused', async () => {
    const disk = new SimulatedDisk();
    await (await open(disk)).wal.close();
    const other = open(disk, { identity: { ...identity, memberId: 1n } });
    await expect(other).rejects.toMatchObject({ code: 'wal-identity-mismatch' });
    await expect(other).rejects.toThrow('member 8e9e05c52164694d of cluster cdf818194e3a8c32, not of member 1 of cluster cdf818194e3a8c32');
  });

  test('no log is made without an identity, nor below an applied state', async () => {
    await expect(open(new SimulatedDisk(), { identity: undefined })).rejects.toThrow(StorageError);
    await expect(open(new SimulatedDisk(), { appliedIndex: 5 })).rejects.toMatchObject({ code: 'wal-corrupt' });
  });

  test('a log that ends below the applied state, or below what was committed, is refused', async () => {
    const disk = new SimulatedDisk();
    const { wal } = await open(disk);
    await append(wal, { entries: entries(1, 3, 1), hardState: hardState(1, 3) });
    await wal.close();
    await expect(open(disk.fork(), { appliedIndex: 4 })).rejects.toMatchObject({ code: 'wal-corrupt', index: 4 });
    await expect(open(disk.fork(), { appliedIndex: 3 })).resolves.toMatchObject({ recovered: { entries: [], firstIndex: 4 } });
  });

  test('a snapshot takes the place of all entries before it, and is reported until it is applied', async () => {
    const disk = new SimulatedDisk();
    const { wal } = await open(disk);
    await append(wal, { entries: entries(1, 3, 1), hardState: hardState(1, 3) });
    await append(wal, { snapshot: { index: 100, term: 4 }, entries: [], hardState: hardState(4, 100) });
    await append(wal, { entries: entries(101, 102, 4), hardState: undefined });
    const again = await reopen(disk, { appliedIndex: 2 });
    expect(again.recovered).toMatchObject({ entries: entries(101, 102, 4), firstIndex: 101, snapshot: { index: 100, term: 4 } });
    const applied = await reopen(disk, { appliedIndex: 100 });
    expect(applied.recovered).toMatchObject({ entries: entries(101, 102, 4), firstIndex: 101, snapshot: undefined });
  });

  test('appends that contradict the log are refused as a broken invariant', async () => {
    const contradictions: [string, LogBatch][] = [
      ['a gap', { entries: entries(6, 6, 1), hardState: undefined }],
      ['a term that goes back', { entries: entries(4, 4, 0), hardState: undefined }],
      ['a hard state that goes back', { entries: [], hardState: hardState(0, 0) }],
      ['a released index', { entries: entries(2, 2, 1), hardState: undefined }],
    ];
    for (const [name, batch] of contradictions) {
      const { wal } = await open(new SimulatedDisk());
      await append(wal, { entries: entries(1, 3, 1), hardState: hardState(1, 2) });
      wal.release(2);
      expect(() => wal.append(batch, () => {}), name).toThrow('appended behind');
      expect(() => wal.append({ entries: [], hardState: undefined }, () => {}), name).toThrow('appended behind');
    }
  });

  test('an idle log is sealed once, after 50 ms', async () => {
    const runtime = new VirtualRuntime();
    let flushes = 0;
    const disk = new SimulatedDisk({ onOperation: ({ kind }) => kind === 'sync' && flushes++ });
    const { wal } = await open(disk, { runtime });
    flushes = 0;
    for (let index = 1; index <= 10; index++) {
      await append(wal, { entries: entries(index, index, 1), hardState: undefined });
      await runtime.advance(20);
    }
    expect(flushes).toBe(10);
    await runtime.advance(1_000);
    expect(flushes).toBe(11);
    expect(runtime.pendingTimers).toBe(0);
    await wal.close();
    expect(flushes).toBe(11);
  });
});

describe('segments', () => {
  const small = { first: 16 * 1024, max: 64 * 1024 };

  test('grow from the first size to the largest, and are recycled once released', async () => {
    const disk = new SimulatedDisk();
    const { wal } = await open(disk, { segmentBytes: small });
    const sizes = new Set<number>();
    for (let index = 1; index <= 400; index++) {
      await append(wal, { entries: entries(index, index, 1), hardState: hardState(1, index) });
      wal.release(index - 5);
      await settle();
      for (const name of disk.names(dir)) sizes.add(disk.contents(`${dir}/${name}`).length);
    }
    expect([...sizes].sort((x, y) => x - y)).toEqual([16, 32, 64].map((kib) => kib * 1024));
    expect(disk.names(dir).length).toBeLessThanOrEqual(4);
    const { recovered } = await reopen(disk, { appliedIndex: 395, segmentBytes: small });
    expect(recovered.entries).toEqual(entries(396, 400, 1));
    expect(recovered.hardState).toEqual(hardState(1, 400));
  });

  test('are kept as long as an entry in them is not released', async () => {
    const disk = new SimulatedDisk();
    const { wal } = await open(disk, { segmentBytes: small });
    for (let index = 1; index <= 100; index++) {
      await append(wal, { entries: entries(index, index, 1), hardState: hardState(1, index) });
      wal.release(Math.min(index, 10));
      await settle();
    }
    const { recovered } = await reopen(disk, { appliedIndex: 10 });
    expect(recovered.entries).toEqual(entries(11, 100, 1));
  });

  test('the segment before is gone on with when the first batch of the newest one is torn', async () => {
    const disk = new SimulatedDisk();
    const { wal } = await open(disk, { segmentBytes: small });
    for (let index = 1; index <= 4; index++) {
      await append(wal, { entries: entries(index, index, 1), hardState: hardState(1, index) });
      await settle();
    }
    const newest = `${dir}/00000002.wal`;
    disk.overwrite(newest, 96, Uint8Array.of(disk.contents(newest)[96]! ^ 1));
    const { recovered } = await reopen(disk, { appliedIndex: 3 });
    expect(recovered).toMatchObject({ entries: [], firstIndex: 4, hardState: hardState(1, 3) });
  });

  test('are not released before the first batch of the next one is durable', async () => {
    const runtime = new VirtualRuntime();
    const disk = new SimulatedDisk({ runtime, latencyMs: ({ kind }) => (kind === 'sync' ? 10 : 0) });
    const { wal } = await runtime.run(open(disk, { runtime, segmentBytes: small }));
    for (let index = 1; index <= 3; index++) {
      wal.append({ entries: entries(index, index, 1), hardState: hardState(1, index) }, () => {});
      await runtime.advance(40);
    }
    wal.append({ entries: entries(4, 4, 1), hardState: undefined }, () => {});
    wal.release(3);
    await runtime.advance(5);
    expect(disk.names(dir)).toContain('00000001.wal');
    expect(disk.contents(`${dir}/00000002.wal`)[0]).not.toBe(0);
    await runtime.advance(50);
    expect(disk.names(dir)).not.toContain('00000001.wal');
  });

  test('a batch larger than a segment is kept whole', async () => {
    const disk = new SimulatedDisk();
    const { wal } = await open(disk, { segmentBytes: small });
    const large = { ...entry(1, 1), data: Buffer.alloc(300_000, 'x') };
    await append(wal, { entries: [large, entry(2, 1)], hardState: hardState(1, 2) });
    await settle();
    await append(wal, { entries: [entry(3, 1)], hardState: undefined });
    const { recovered } = await reopen(disk);
    expect(recovered.entries.map(({ index, data }) => [index, data.length])).toEqual([
      [1, 300_000],
      [2, 7],
      [3, 7],
    ]);
  });

  test('a full disk while the next one is prepared is survived; the log grows where it is', async () => {
    let isFull = true;
    const runtime = new VirtualRuntime();
    const disk = new SimulatedDisk({
      fault: ({ kind, path }) => (isFull && kind === 'create' && !path.endsWith('1.wal') ? 'ENOSPC' : undefined),
    });
    const { wal } = await open(disk, { runtime, segmentBytes: small });
    for (let index = 1; index <= 20; index++) await append(wal, { entries: entries(index, index, 1), hardState: undefined });
    expect(disk.names(dir)).toEqual(['00000001.wal']);
    isFull = false;
    await runtime.advance(1_000);
    for (let index = 21; index <= 40; index++) {
      await append(wal, { entries: entries(index, index, 1), hardState: undefined });
      await settle();
    }
    expect(disk.names(dir).length).toBeGreaterThan(1);
    expect((await reopen(disk)).recovered.entries).toEqual(entries(1, 40, 1));
  });

  test('restarts do not pile up segments', async () => {
    const disk = new SimulatedDisk();
    const { wal } = await open(disk);
    await append(wal, { entries: entries(1, 3, 1), hardState: hardState(1, 1) });
    await wal.close();
    for (let round = 0; round < 20; round++) {
      const { wal, recovered } = await open(disk);
      expect(recovered.entries).toEqual(entries(1, 3, 1));
      if (round % 2 === 0) await wal.close();
      else disk.killProcess();
    }
    expect(disk.names(dir).length).toBeLessThanOrEqual(2);
  });
});

describe('a failing disk', () => {
  test.each(['write', 'sync'] as const)('a failed %s is fatal, and nothing is acknowledged after it', async (failing) => {
    let isBroken = false;
    const causes: Error[] = [];
    const disk = new SimulatedDisk({ fault: ({ kind }) => (isBroken && kind === failing ? 'EIO' : undefined) });
    const { wal } = await open(disk, { fatal: recordFatal(causes) });
    let told = 0;
    const tell = (): void => void told++;
    wal.append({ entries: entries(1, 1, 1), hardState: undefined }, tell);
    isBroken = true;
    expect(() => wal.append({ entries: entries(2, 2, 1), hardState: undefined }, tell)).toThrow('stopped');
    isBroken = false;
    expect(() => wal.append({ entries: entries(3, 3, 1), hardState: undefined }, tell)).toThrow('stopped');
    wal.release(1);
    await wal.close();
    expect(told).toBe(1);
    expect(causes).toHaveLength(1);
    expect(causes[0]).toMatchObject({ code: 'EIO' });
  });

  test('a flush that fails after append returned is fatal, and what waited behind it is never acknowledged', async () => {
    const runtime = new VirtualRuntime();
    let isBroken = false;
    const causes: Error[] = [];
    const options: SimulatedDiskOptions = {
      runtime,
      latencyMs: () => 1,
      fault: ({ kind }) => (isBroken && kind === 'sync' ? 'EIO' : undefined),
    };
    const { wal } = await runtime.run(open(new SimulatedDisk(options), { runtime, fatal: recordFatal(causes) }));
    isBroken = true;
    let told = 0;
    for (let index = 1; index <= 3; index++) wal.append({ entries: entries(index, index, 1), hardState: undefined }, () => told++);
    await runtime.advance(3);
    isBroken = false;
    await runtime.advance(1_000);
    expect([told, causes.length]).toEqual([0, 1]);
    expect(() => wal.append({ entries: [], hardState: undefined }, () => {})).toThrow('stopped');
  });

  test('an error while the next segment is prepared is fatal', async () => {
    const causes: Error[] = [];
    const disk = new SimulatedDisk({ fault: ({ kind, path }) => (kind === 'sync' && path.endsWith('.tmp') ? 'EIO' : undefined) });
    const { wal } = await open(disk, { fatal: recordFatal(causes), segmentBytes: { first: 16384, max: 65536 } });
    for (let index = 1; index <= 3; index++) wal.append({ entries: entries(index, index, 1), hardState: undefined }, () => {});
    await settle();
    expect(causes).toHaveLength(1);
  });
});

function open(disk: SimulatedDisk, options: Partial<OpenWalOptions> = {}): Promise<OpenedWal> {
  const runtime = new VirtualRuntime();
  return openWal({ disk: disk.mount(), dir, runtime, fatal: recordFatal([]), identity, appliedIndex: 0, ...options });
}

/** As after the process was killed. */
function reopen(disk: SimulatedDisk, options: Partial<OpenWalOptions> = {}): Promise<OpenedWal> {
  disk.killProcess();
  return open(disk, options);
}

function recordFatal(causes: Error[]): (cause: Error) => never {
  return (cause) => {
    causes.push(cause);
    throw new Error(`stopped: ${cause.message}`);
  };
}

function append(wal: Wal, batch: LogBatch): Promise<void> {
  return new Promise((resolve) => wal.append(batch, resolve));
}

function entry(index: number, term: number): Entry {
  return { index, term, type: 'normal', data: new TextEncoder().encode(`entry ${index % 10}`) };
}

function entries(first: number, last: number, term: number): Entry[] {
  return Array.from({ length: last - first + 1 }, (_, at) => entry(first + at, term));
}

function hardState(term: number, commit: number): HardState {
  return { term, vote: 7n, commit };
}

/** Lets everything finish that waits for nothing but promises. */
function settle(): Promise<void> {
  return new VirtualRuntime().advance(0);
}
