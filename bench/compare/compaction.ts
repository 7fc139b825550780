import type { Client } from '@conclave/sdk';
import { TcpProxy } from '@conclave/testkit';
import { type ClientName, type Comparison, cell, connectCompared, ofBoth, pause } from './compared.ts';

/** Item 4: what a client's copy holds after writes and a compaction that it was not connected for. */
export async function compareCompaction(address: string, direct: Client): Promise<readonly Comparison[]> {
  const seen = await ofBoth((name) => missed(name, address, direct));
  const show = ({ wrong, notices }: Seen) =>
    cell(`${wrong} of 100 keys wrong, ${notices} notice${notices === 1 ? '' : 's'}`, wrong === 0 && notices === 1);
  return [
    {
      item: 4,
      measure: 'copy of a prefix after a compaction while disconnected',
      bar: 'equal to a fresh range, 1 notice',
      ours: show(seen.ours),
      etcd3: show(seen.etcd3),
    },
  ];
}

interface Seen {
  readonly wrong: number;
  readonly notices: number;
}

async function missed(name: ClientName, address: string, direct: Client): Promise<Seen> {
  await using proxy = await TcpProxy.to(address);
  await using client = await connectCompared(name, { hosts: [proxy.address] });
  const prefix = `missed/${name}/`;
  const keys = Array.from({ length: 100 }, (_, n) => `${prefix}${n}`);
  for (const key of keys) await direct.put(key, 'old');
  const mirror = await client.mirror(prefix);
  await proxy.refuse();
  const expected = new Map<string, string>();
  for (const [n, key] of keys.entries()) {
    // A third is deleted, a third changed, a third stays.
    if (n % 3 === 0) await direct.delete(key);
    else if (n % 3 === 1) await direct.put(key, 'new');
    if (n % 3 !== 0) expected.set(key, n % 3 === 1 ? 'new' : 'old');
  }
  await direct.compact((await direct.put('missed', '')).revision);
  await proxy.accept();
  const wrong = (): number => keys.filter((key) => mirror.contents().get(key) !== expected.get(key)).length;
  for (const until = performance.now() + 15_000; wrong() > 0 && performance.now() < until; ) await pause(20);
  const seen = { wrong: wrong(), notices: mirror.notices };
  await mirror.stop();
  return seen;
}
