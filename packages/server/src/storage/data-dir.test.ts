import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import * as fs from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { openDataDir } from './data-dir.ts';

let around: string;
let path: string;

beforeEach(() => {
  around = fs.mkdtempSync(join(tmpdir(), 'conclave-data-dir-'));
  path = join(around, 'data');
});

afterEach(() => fs.rmSync(around, { recursive: true, force: true }));

const mode = (name: string): string => (fs.statSync(join(path, name)).mode & 0o777).toString(8);

describe('a data dir', () => {
  test('is made with its layout, for the owner alone', async () => {
    const dataDir = await openDataDir(path);
    expect(fs.readFileSync(join(path, 'FORMAT'), 'utf8')).toBe('conclave data format 1\n');
    expect(['', 'member', 'member/state'].map(mode)).toEqual(['700', '700', '700']);
    expect(['FORMAT', 'LOCK'].map(mode)).toEqual(['600', '600']);
    expect(dataDir.walPath).toBe(join(fs.realpathSync(path), 'member', 'wal'));
    await dataDir.close();
    await (await openDataDir(path)).close();
  });

  test('is refused to a second server of this process, by whatever path, until the first has closed it', async () => {
    const dataDir = await openDataDir(path);
    const link = join(around, 'link');
    fs.symlinkSync(around, link);
    await expect(openDataDir(path)).rejects.toMatchObject({ code: 'data-dir-locked' });
    await expect(openDataDir(join(link, 'data'))).rejects.toMatchObject({ code: 'data-dir-locked' });
    await dataDir.close();
    await dataDir.close();
    await (await openDataDir(path)).close();
  });

  // A LOCK that was removed and made anew is held by nobody, whoever is at work in the folder: only FORMAT tells then.
  test.each(['LOCK', 'FORMAT'])(
    'is refused to another process that finds %s locked, and free again the moment its holder was killed',
    async (name) => {
      await (await openDataDir(path)).close();
      const script = `
      const { openSync } = require('node:fs');
      const { tryLock } = require('fs-native-extensions');
      console.log(tryLock(openSync(process.argv[1], 'r+')));
      setInterval(() => {}, 1000);`;
      const holder = spawn(process.execPath, ['-e', script, join(path, name)], {
        cwd: import.meta.dirname,
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      const [said] = await once(holder.stdout, 'data');
      expect(String(said)).toBe('true\n');
      await expect(openDataDir(path)).rejects.toThrow(`data dir ${path} is in use by another process`);
      holder.kill('SIGKILL');
      await once(holder, 'exit');
      await (await openDataDir(path)).close();
    },
  );

  test('cannot be opened again in this process once it is poisoned, closed or not', async () => {
    const dataDir = await openDataDir(path);
    dataDir.poison();
    await expect(openDataDir(path)).rejects.toMatchObject({ code: 'data-dir-unusable' });
    await dataDir.close();
    await expect(openDataDir(path)).rejects.toThrow('only another process may open it again');
    const script = `console.log(require('fs-native-extensions').tryLock(require('node:fs').openSync(process.argv[1], 'r+')))`;
    const other = execFileSync(process.execPath, ['-e', script, join(path, 'LOCK')], { cwd: import.meta.dirname });
    expect(String(other)).toBe('true\n');
  });

  test('of a newer format is refused, and left as it is', async () => {
    await (await openDataDir(path)).close();
    fs.writeFileSync(join(path, 'FORMAT'), 'conclave data format 2\n');
    await expect(openDataDir(path)).rejects.toMatchObject({ code: 'format-newer' });
    fs.writeFileSync(join(path, 'FORMAT'), 'something');
    await expect(openDataDir(path)).rejects.toMatchObject({ code: 'format-unknown' });
    fs.writeFileSync(join(path, 'FORMAT'), 'conclave data format 1\n');
    await (await openDataDir(path)).close();
  });

  test('is not made of a folder that holds something else, nor of a link, a file, or a folder open to others', async () => {
    fs.mkdirSync(path, { mode: 0o700 });
    fs.writeFileSync(join(path, 'thesis.tex'), '');
    await expect(openDataDir(path)).rejects.toMatchObject({ code: 'format-unknown' });
    const link = join(around, 'link');
    fs.symlinkSync(path, link);
    await expect(openDataDir(link)).rejects.toThrow('is a symbolic link');
    await expect(openDataDir(join(path, 'thesis.tex'))).rejects.toThrow('is not a folder');
    fs.chmodSync(path, 0o750);
    await expect(openDataDir(path)).rejects.toThrow('mode 750');
    await expect(openDataDir(join(around, 'no', 'such'))).rejects.toMatchObject({ code: 'data-dir-unusable' });
  });

  test('whose making was interrupted is finished by the next start', async () => {
    fs.mkdirSync(path, { mode: 0o700 });
    fs.writeFileSync(join(path, 'LOCK'), '');
    fs.writeFileSync(join(path, 'FORMAT.tmp'), 'concl');
    await (await openDataDir(path)).close();
    expect(fs.readdirSync(path).sort()).toEqual(['FORMAT', 'LOCK', 'member']);
  });
});
