import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { type Client, put } from '@conclave/sdk';

/** What became of a slow loop over a watch. */
export interface SlowLoopReport {
  readonly told: number;
  /** Events that others stand for. */
  readonly conflated: number;
  /** Events that came twice or out of turn. */
  readonly disorder: number;
  /** Of the process's memory, at most, over what it was before. */
  readonly growthBytes: number;
  readonly seconds: number;
}

/** As many keys, all in each transaction. */
const keys = 125;
const inFlight = 8;
const value = 'x'.repeat(100);

/** Writes so many events of 100 bytes below `slow/`, 125 at a revision. Gives a revision before them. */
export async function writeEvents(client: Client, count: number): Promise<bigint> {
  const operations = Array.from({ length: keys }, (_, at) => put(`slow/${String(at).padStart(3, '0')}`, value));
  const { revision } = await client.put('before', '');
  let left = count / keys;
  const writer = async (): Promise<void> => {
    while (left-- > 0)
      await client
        .txn()
        .then(...operations)
        .commit();
  };
  await Promise.all(Array.from({ length: inFlight }, writer));
  return revision;
}

/** Lets a process of its own follow them. */
export async function followSlowly(
  address: string,
  { first, count, overflow }: { readonly first: bigint; readonly count: number; readonly overflow: 'pause' | 'conflate' },
): Promise<SlowLoopReport> {
  const child = fork(fileURLToPath(new URL('./slow-loop.ts', import.meta.url)), [address, String(first), String(count), overflow], {
    execArgv: ['--expose-gc', '--conditions=@conclave/source', '--import', 'tsx'],
  });
  try {
    const [report] = (await Promise.race([once(child, 'message'), failure(child)])) as [SlowLoopReport];
    return report;
  } finally {
    child.kill();
  }
}

async function failure(child: ChildProcess): Promise<never> {
  const [code, signal] = await once(child, 'exit');
  throw new Error(`the loop ended with ${code ?? signal}`);
}
