// The client side of the heartbeat benchmark, in a process of its own. Arguments: address, number of keys, milliseconds. Fills the store, says
// { filled: true }, begins on { begin: true }, and ends with { load }.
import { once } from 'node:events';
import { type Client, connect, prefix, put } from '@conclave/sdk';

export interface HeavyLoad {
  /** Counts of all keys, reads of a thousandth of them, puts of the largest size, txns of 128 puts. */
  readonly counts: number;
  readonly ranges: number;
  readonly bigPuts: number;
  readonly txns: number;
}

const [address = '', keys = '', ms = ''] = process.argv.slice(2);
const putsPerTxn = 125;

async function fill(client: Client, keyCount: number): Promise<void> {
  let next = 0;
  const writer = async (): Promise<void> => {
    for (let from = next; from < keyCount; from = next) {
      next += putsPerTxn;
      const puts = Array.from({ length: putsPerTxn }, (_, at) => put(keyOf(from + at), 'v'.repeat(64)));
      await client
        .txn()
        .then(...puts)
        .commit({ deadlineMs: 60_000 });
    }
  };
  await Promise.all(Array.from({ length: 16 }, writer));
}

function keyOf(number: number): string {
  return `million/${String(number).padStart(8, '0')}`;
}

async function underLoad(client: Client, durationMs: number): Promise<HeavyLoad> {
  const endAt = performance.now() + durationMs;
  const big = Buffer.alloc(1.5 * 1024 * 1024 - 64, 'b');
  const repeat = async (work: () => Promise<unknown>): Promise<number> => {
    let times = 0;
    for (; performance.now() < endAt; times += 1) await work();
    return times;
  };
  const txnOf128 = (): Promise<unknown> => {
    const puts = Array.from({ length: 128 }, (_, at) => put(`txn/${at}`, 's'.repeat(128)));
    return client
      .txn()
      .then(...puts)
      .commit();
  };
  // Serializable: a linearizable read has a heartbeat of its own, and the more of those the smaller the gaps.
  const [counts, ranges, bigPuts, txns] = await Promise.all([
    repeat(() => client.list(prefix('million/'), { countOnly: true, serializable: true })),
    repeat(() => client.list(prefix(`million/00${String(Math.floor(Math.random() * 1000)).padStart(3, '0')}`), { serializable: true })),
    repeat(() => client.put('big', big)),
    repeat(txnOf128),
  ]);
  return { counts, ranges, bigPuts, txns };
}

await using client = await connect({ endpoints: address, deadlineMs: 60_000 });
await fill(client, Number(keys));
process.send?.({ filled: true });
await once(process, 'message');
process.send?.({ load: await underLoad(client, Number(ms)) });
process.disconnect();
