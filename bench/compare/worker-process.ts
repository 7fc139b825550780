import { execFile, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { ClientName } from './compared.ts';

const file = fileURLToPath(new URL('./worker.ts', import.meta.url));

/** Has a client do something in a process of its own, and gives what it found. */
export async function runWorker<T>(what: string, name: ClientName, address: string, args: readonly string[]): Promise<T> {
  const { stdout } = await promisify(execFile)(process.execPath, [...flags(), what, name, address, ...args], { maxBuffer: 2 ** 20 });
  return JSON.parse(stdout.slice(stdout.lastIndexOf('{'))) as T;
}

/** The same of something that goes on until it is disposed of. */
export function startWorker(what: string, name: ClientName, address: string, args: readonly string[]): Disposable {
  const child = spawn(process.execPath, [...flags(), what, name, address, ...args], { stdio: 'ignore' });
  return { [Symbol.dispose]: () => void child.kill('SIGKILL') };
}

/** What is built runs, as users have it: not the sources. */
function flags(): readonly string[] {
  return ['--expose-gc', ...process.execArgv.filter((flag) => !flag.startsWith('--conditions')), file];
}
