import type { Disk, DiskFile } from '@conclave/server';
import { describe, expect, test } from 'vitest';
import { Random, VirtualRuntime } from './index.ts';
import { type CrashPolicy, type SectorFate, SimulatedDisk } from './simulation.ts';

const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString().replaceAll('\0', '');

describe('simulated disk', () => {
  test('a power cut forgets what was written and not flushed, the end of a process does not', async () => {
    const disk = new SimulatedDisk();
    const file = await durableFile(disk.mount(), '/f');
    await flush(file, 0, 'old');
    const failing = disk.fork({ fault: ({ kind }) => (kind === 'sync' ? 'EIO' : undefined) });
    const again = await failing.mount().open('/f');
    await expect(flush(again, 0, 'new')).rejects.toMatchObject({ code: 'EIO' });
    failing.killProcess();
    expect(text(failing.contents('/f'))).toBe('new');
    failing.cutPower(fate('drop'));
    expect(text(failing.contents('/f'))).toBe('old');
    expect(text(disk.contents('/f'))).toBe('old');
  });

  test('after a failed flush a second one that succeeds does not make the first write durable', async () => {
    let failures = 1;
    const disk = new SimulatedDisk({ fault: ({ kind, path }) => (kind === 'sync' && path === '/f' && failures-- > 0 ? 'EIO' : undefined) });
    const file = await disk.mount().create('/f');
    await disk.mount().syncDir('/');
    await expect(flush(file, 0, 'first')).rejects.toThrow('EIO');
    await flush(file, 512, 'second');
    disk.cutPower(fate('drop'));
    expect(text(disk.contents('/f'))).toBe('second');
  });

  test('a write whose flush failed does not come back over what was written and flushed after it', async () => {
    let failures = 1;
    const disk = new SimulatedDisk({ fault: ({ kind, path }) => (kind === 'sync' && path === '/f' && failures-- > 0 ? 'EIO' : undefined) });
    const file = await disk.mount().create('/f');
    await disk.mount().syncDir('/');
    await expect(flush(file, 0, `first ${'x'.repeat(1018)}`)).rejects.toThrow('EIO');
    await flush(file, 0, 'later');
    disk.cutPower(fate('keep'));
    expect(text(disk.contents('/f'))).toBe(`later ${'x'.repeat(1018)}`);
  });

  test('each unflushed sector is kept, dropped or scrambled on its own', async () => {
    const disk = new SimulatedDisk({ ignoresSync: false, fault: ({ kind }) => (kind === 'sync' && isBroken ? 'EIO' : undefined) });
    let isBroken = false;
    const file = await durableFile(disk.mount(), '/f');
    await flush(file, 0, 'a'.repeat(2048));
    isBroken = true;
    await expect(flush(file, 100, 'b'.repeat(1900))).rejects.toThrow('EIO');
    const fates: SectorFate[] = ['keep', 'drop', 'garbage', 'keep'];
    disk.cutPower({ ...fate('keep'), sector: (_, offset) => fates[offset / 512]!, garbage: (length) => Buffer.alloc(length, '?') });
    const after = text(disk.contents('/f'));
    expect(after).toBe(`${'a'.repeat(100)}${'b'.repeat(412)}${'a'.repeat(512)}${'?'.repeat(512)}${'b'.repeat(464)}${'a'.repeat(48)}`);
  });

  test('names are durable only after their folder was synced', async () => {
    const disk = new SimulatedDisk();
    const mount = disk.mount();
    await durableFile(mount, '/a');
    await mount.create('/b');
    await mount.rename('/a', '/c');
    expect([...disk.names('/')].sort()).toEqual(['b', 'c']);
    const lost = disk.fork();
    lost.cutPower(fate('drop'));
    expect(lost.names('/')).toEqual(['a']);
    const kept = disk.fork();
    kept.cutPower(fate('keep'));
    expect([...kept.names('/')].sort()).toEqual(['b', 'c']);
    const reordered = disk.fork();
    reordered.cutPower({ ...fate('keep'), keepsName: (path) => path === '/c' });
    expect(reordered.names('/')).toEqual(['c']);
  });

  test('a renamed folder takes its files along', async () => {
    const disk = new SimulatedDisk();
    const mount = disk.mount();
    await mount.makeDir('/d.tmp');
    const file = await mount.create('/d.tmp/f');
    await flush(file, 0, 'x');
    await mount.syncDir('/d.tmp');
    await mount.rename('/d.tmp', '/d');
    expect(text(disk.contents('/d/f'))).toBe('x');
    await mount.syncDir('/');
    disk.cutPower(fate('drop'));
    expect(text(disk.contents('/d/f'))).toBe('x');
  });

  test('what a dead process was doing, and what it still asks for, never completes', async () => {
    const runtime = new VirtualRuntime();
    const disk = new SimulatedDisk({ runtime, latencyMs: () => 5 });
    const mount = disk.mount();
    let completed = 0;
    const count = (): void => void completed++;
    void mount.create('/f').then(count);
    await runtime.advance(2);
    disk.killProcess();
    void mount.create('/g').then(count);
    await runtime.advance(20);
    expect(completed).toBe(0);
    expect(disk.names('/')).toEqual([]);
    await runtime.run(disk.mount().create('/h'));
    expect(disk.names('/')).toEqual(['h']);
  });

  test('a disk that ignores flushes loses what was flushed', async () => {
    const disk = new SimulatedDisk({ ignoresSync: true });
    await flush(await disk.mount().create('/f'), 0, 'x');
    await disk.mount().syncDir('/');
    disk.cutPower(fate('drop'));
    expect(disk.names('/')).toEqual([]);
  });

  test('the same seed leaves the same disk', async () => {
    const after = async (seed: number): Promise<string> => {
      const disk = new SimulatedDisk({ fault: ({ kind, path }) => (kind === 'sync' && path === '/f' && isBroken ? 'EIO' : undefined) });
      let isBroken = false;
      const file = await durableFile(disk.mount(), '/f');
      isBroken = true;
      await flush(file, 0, 'x'.repeat(8192)).catch(() => undefined);
      disk.cutPower(new Random(seed));
      return Buffer.from(disk.contents('/f')).toString('base64');
    };
    const seeds = [1, 2, 3, 4, 5, 6, 7, 8];
    const first = await Promise.all(seeds.map(after));
    expect(await Promise.all(seeds.map(after))).toEqual(first);
    expect(new Set(first).size).toBeGreaterThan(3);
  });
});

async function durableFile(disk: Disk, path: string): Promise<DiskFile> {
  const file = await disk.create(path);
  await disk.syncDir('/');
  return file;
}

function flush(file: DiskFile, offset: number, bytes: string): Promise<void> {
  return new Promise((resolve, reject) => {
    file.flush(offset, Buffer.from(bytes), (error) => (error === undefined ? resolve() : reject(error)));
  });
}

function fate(sector: SectorFate): CrashPolicy {
  return { keepsName: () => sector === 'keep', sector: () => sector, garbage: (length) => new Uint8Array(length) };
}
