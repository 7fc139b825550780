import { type Client, connect, prefix } from '@conclave/sdk';
import { TcpProxy } from '@conclave/testkit';

/** The connection is cut after every so many bytes that the server sends, so many times in all. */
export interface Cuts {
  readonly every: number;
  readonly times: number;
}

interface CutWatch {
  /** Of each event. */
  readonly revisions: readonly bigint[];
  readonly cuts: number;
}

const value = 'x'.repeat(100);

/** Writes so many events below `cut/`, each at a revision of its own, and nothing between them. Gives their revisions. */
async function writeHistory(client: Client, count: number): Promise<readonly bigint[]> {
  const revisions: bigint[] = [];
  for (let n = 0; n < count; n += 100) {
    const written = await Promise.all(Array.from({ length: Math.min(100, count - n) }, (_, at) => client.put(`cut/${n + at}`, value)));
    revisions.push(...written.map(({ revision }) => revision));
  }
  return revisions.sort((one, other) => Number(one - other));
}

/** Follows the same keys through a proxy that cuts, until so many events came. `onStanding` is called when the watch stands. */
async function followThroughCuts(
  address: string,
  { every, times }: Cuts,
  startRevision: bigint,
  count: number,
  onStanding: () => void = () => {},
): Promise<CutWatch> {
  await using proxy = await TcpProxy.to(address);
  await using client = await connect({ endpoints: proxy.address });
  let left = times;
  proxy.cutEvery(() => (left-- > 0 ? every : Number.POSITIVE_INFINITY));
  const revisions: bigint[] = [];
  for await (const event of client.watch(prefix('cut/'), { startRevision, notifyCreated: true })) {
    if (event.type === 'created') onStanding();
    else if (revisions.push(event.revision) === count) break;
  }
  return { revisions, cuts: proxy.cuts };
}

/** Follows a history that is there, and one that is being written, once for each kind of cuts. */
export async function followHistories(
  address: string,
  kinds: readonly Cuts[],
  count: number,
): Promise<readonly { readonly written: readonly bigint[]; readonly watches: readonly CutWatch[] }[]> {
  await using client = await connect({ endpoints: address });
  const past = await writeHistory(client, count);
  const caughtUp = await Promise.all(kinds.map((kind) => followThroughCuts(address, kind, past[0] ?? 0n, count)));
  let begin: () => void = () => {};
  const stand = new Promise<void>((resolve) => {
    let left = kinds.length;
    begin = () => --left === 0 && resolve();
  });
  const next = (past.at(-1) ?? 0n) + 1n;
  const live = Promise.all(kinds.map((kind) => followThroughCuts(address, kind, next, count, begin)));
  await stand;
  const present = await writeHistory(client, count);
  return [
    { written: past, watches: caughtUp },
    { written: present, watches: await live },
  ];
}
