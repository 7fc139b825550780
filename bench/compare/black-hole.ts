import { type Client, prefix } from '@conclave/sdk';
import { TcpProxy } from '@conclave/testkit';
import { type ClientName, type Comparison, cell, connectCompared, ofBoth, pause } from './compared.ts';

/** Together a hundred. */
const runs: ReadonlyMap<number, number> = new Map([
  [2, 34],
  [5, 33],
  [10, 33],
]);

/** Item 3: a connection that goes silent, and whether a lease's loss is told before the server lets it go. */
export async function compareBlackHoles(address: string, direct: Client): Promise<readonly Comparison[]> {
  const rows: Comparison[] = [];
  for (const [ttlSeconds, count] of runs) {
    const show = (early: readonly number[]) => {
      const inTime = early.filter((ms) => ms > 0).length;
      const least = Math.min(...early);
      return cell(`${inTime} of ${count}; the latest ${seconds(Math.abs(least))} ${least > 0 ? 'before' : 'after'}`, inTime === count);
    };
    const told = await ofBoth((name) => earliness(name, address, direct, ttlSeconds, count));
    rows.push({
      item: 3,
      measure: `lease of ${ttlSeconds} s, connection silent: loss told before the server's expiry`,
      bar: `${count} of ${count}`,
      ours: show(told.ours),
      etcd3: show(told.etcd3),
    });
  }
  return rows;
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}

/** By how many milliseconds each loss was told before the server's own client saw the key go; below 0: after. */
async function earliness(name: ClientName, address: string, direct: Client, ttlSeconds: number, count: number): Promise<readonly number[]> {
  const start = `hole/${name}/${ttlSeconds}/`;
  const goneAt = new Map<string, number>();
  const watching = direct.watch(prefix(start)).subscribe((event) => {
    if (event.type === 'delete') goneAt.set(event.key, performance.now());
  });
  try {
    return await Promise.all(Array.from({ length: count }, (_, n) => one(`${start}${n}`, n / count)));
  } finally {
    watching.unsubscribe();
  }

  async function one(key: string, share: number): Promise<number> {
    await using proxy = await TcpProxy.to(address);
    await using client = await connectCompared(name, { hosts: [proxy.address] });
    const { lost } = await client.lease(ttlSeconds, key);
    // At any point between two renewals.
    await pause(ttlSeconds * (1000 / 3) * (1 + share));
    proxy.silence();
    await lost;
    const lostAt = performance.now();
    while (goneAt.get(key) === undefined) await pause(10);
    // A client that closes would wait for its silent connection.
    await proxy.refuse();
    return (goneAt.get(key) ?? 0) - lostAt;
  }
}
