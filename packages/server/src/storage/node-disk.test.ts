import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { DiskFile } from './disk.ts';
import { NodeDisk } from './node-disk.ts';

let dir: string;

beforeEach(() => {
  dir = fs.mkdtempSync(join(tmpdir(), 'conclave-disk-'));
});

afterEach(() => fs.rmSync(dir, { recursive: true, force: true }));

describe.each(['inline', 'worker'] as const)('the disk of this machine, flushing %s', (flush) => {
  let disk: NodeDisk;

  beforeEach(() => {
    disk = new NodeDisk({ flush });
  });

  afterEach(() => disk.close());

  test('writes where it is told, grows the file, reads it back', async () => {
    const file = await disk.create(join(dir, 'f'));
    await flushed(file, 4096, Buffer.from('there'));
    await flushed(file, 0, Buffer.from('here'));
    expect(await file.size()).toBe(4101);
    expect(String(await file.read(0, 4))).toBe('here');
    expect(String(await file.read(4096, 100))).toBe('there');
    await file.close();
    expect((fs.statSync(join(dir, 'f')).mode & 0o777).toString(8)).toBe('600');
  });

  test('completes flushes in the order they were asked for', async () => {
    const files = await Promise.all(['a', 'b', 'c'].map((name) => disk.create(join(dir, name))));
    const done: number[] = [];
    await Promise.all(files.map((file, at) => flushed(file, 0, Buffer.from('x')).then(() => done.push(at))));
    expect(done).toEqual([0, 1, 2]);
    await Promise.all(files.map((file) => file.close()));
  });

  test('completes a flush inline before it returns, and only inline', async () => {
    const file = await disk.create(join(dir, 'f'));
    let isDone = false;
    const completed = new Promise<void>((resolve) => {
      file.flush(0, Buffer.from('x'), () => {
        isDone = true;
        resolve();
      });
    });
    expect(isDone).toBe(flush === 'inline');
    await completed;
    await file.close();
  });

  test('gives the error of the system to the caller', async () => {
    const file = await disk.create(join(dir, 'f'));
    await file.close();
    await expect(flushed(file, 0, Buffer.from('x'))).rejects.toThrow();
    await expect(disk.open(join(dir, 'none'))).rejects.toMatchObject({ code: 'ENOENT' });
    await expect(disk.create(join(dir, 'f'))).rejects.toMatchObject({ code: 'EEXIST' });
    await expect(disk.list(join(dir, 'none'))).rejects.toMatchObject({ code: 'ENOENT' });
    fs.symlinkSync(join(dir, 'f'), join(dir, 'link'));
    await expect(disk.open(join(dir, 'link'))).rejects.toMatchObject({ code: 'ELOOP' });
  });

  test('fills with zeroes over what was there', async () => {
    const file = await disk.create(join(dir, 'f'));
    await flushed(file, 0, Buffer.from('old'));
    await file.fillZero(3 * 1024 * 1024 + 5);
    expect(await file.size()).toBe(3 * 1024 * 1024 + 5);
    expect(fs.readFileSync(join(dir, 'f')).every((byte) => byte === 0)).toBe(true);
    await file.close();
  });

  test('makes, lists, renames and removes names', async () => {
    await disk.makeDir(join(dir, 'd'));
    await disk.makeDir(join(dir, 'd'));
    await (await disk.create(join(dir, 'd', 'x'))).close();
    await disk.rename(join(dir, 'd', 'x'), join(dir, 'd', 'y'));
    await disk.syncDir(join(dir, 'd'));
    expect(await disk.list(join(dir, 'd'))).toEqual(['y']);
    await disk.unlink(join(dir, 'd', 'y'));
    expect(await disk.list(join(dir, 'd'))).toEqual([]);
  });
});

test('a disk whose worker was closed fails its flushes', async () => {
  const disk = new NodeDisk({ flush: 'worker' });
  const file = await disk.create(join(dir, 'f'));
  await disk.close();
  await expect(flushed(file, 0, Buffer.from('x'))).rejects.toThrow('the thread that flushes the log ended');
  await file.close();
});

test('a disk flushes where it is told to, from one flush to the next', async () => {
  const disk = new NodeDisk({ flush: 'inline' });
  const file = await disk.create(join(dir, 'f'));
  const isDoneAtOnce = async (text: string, offset: number): Promise<boolean> => {
    let isDone = false;
    const done = new Promise<void>((resolve, reject) => {
      file.flush(offset, Buffer.from(text), (error) => {
        isDone = true;
        if (error === undefined) resolve();
        else reject(error);
      });
    });
    const wasDone = isDone;
    await done;
    return wasDone;
  };
  expect(await isDoneAtOnce('in', 0)).toBe(true);
  disk.setFlush('worker');
  expect(await isDoneAtOnce('be', 2)).toBe(false);
  disk.setFlush('inline');
  expect(await isDoneAtOnce('in', 4)).toBe(true);
  expect(String(await file.read(0, 6))).toBe('inbein');
  await file.close();
  await disk.close();
});

function flushed(file: DiskFile, offset: number, bytes: Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    file.flush(offset, bytes, (error) => (error === undefined ? resolve() : reject(error)));
  });
}
