// One of the processes that increment one counter. Arguments: endpoint, how many times.
import { lock } from '@conclave/recipes';
import { connect, put } from '@conclave/sdk';

const [endpoint = '', times = '0'] = process.argv.slice(2);

/** The tokens this process held the lock with, in order. */
export interface CounterSaying {
  readonly tokens: readonly string[];
}

{
  await using client = await connect({ endpoints: endpoint });
  await using lease = await client.lease.grant({ ttlSeconds: 10 });
  const tokens: string[] = [];
  for (let at = 0; at < Number(times); at += 1) {
    await lock(client, 'tour/counter-lock', { lease }, async (held) => {
      // Read, think, write: without the lock, increments would get lost between the two.
      const value = Number((await client.get('tour/counter'))?.value ?? 0);
      // The guard is the fence: should the lock have been lost meanwhile, the store refuses the write.
      const written = await client
        .txn()
        .if(held.guard)
        .then(put('tour/counter', String(value + 1)))
        .commit();
      if (!written.succeeded) throw new Error('the fence refused a write');
      tokens.push(String(held.token));
    });
  }
  const saying: CounterSaying = { tokens };
  process.send?.(saying);
}
process.disconnect?.();
