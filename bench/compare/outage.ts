import { type Client, prefix } from '@conclave/sdk';
import { TcpProxy } from '@conclave/testkit';
import { type ClientName, type Comparison, cell, connectCompared, ofBoth, pause } from './compared.ts';

const ttlSeconds = 2;
const registrations = 50;
const candidacies = 10;
const outageMs = 3 * ttlSeconds * 1_000;
const patienceMs = 20_000;

/** Item 8: the cluster is away for longer than every TTL; until when all that stood stands again. */
export async function compareOutage(address: string, direct: Client): Promise<readonly Comparison[]> {
  const back = await ofBoth((name) => away(name, address, direct));
  const show = ({ backMs, missing }: Back) =>
    cell(missing > 0 ? `${missing} missing after ${patienceMs / 1000} s` : `${backMs.toFixed(0)} ms`, missing === 0 && backMs <= 2_000);
  return [
    {
      item: 8,
      measure: `${registrations} registrations and ${candidacies} candidacies of ${ttlSeconds} s, cluster away for ${outageMs / 1000} s`,
      bar: 'all back within 2 s',
      ours: show(back.ours),
      etcd3: show(back.etcd3),
    },
  ];
}

interface Back {
  readonly backMs: number;
  readonly missing: number;
}

async function away(name: ClientName, address: string, direct: Client): Promise<Back> {
  await using proxy = await TcpProxy.to(address);
  await using client = await connectCompared(name, { hosts: [proxy.address] });
  const present = `outage/${name}/`;
  for (let n = 0; n < registrations; n++) await client.register(`${present}${n}`, 'here', ttlSeconds);
  const elections = Array.from({ length: candidacies }, (_, n) => `outage-${name}-${n}`);
  for (const election of elections) await client.stand(election, 'me', ttlSeconds);
  const standing = async (): Promise<number> => {
    const present_ = (await direct.list(prefix(present))).count;
    // The peer puts a folder of its own before.
    const candidates = (await direct.list(prefix(`outage-${name}-`))).count + (await direct.list(prefix(`election/outage-${name}-`))).count;
    return present_ + candidates;
  };
  const all = registrations + candidacies;
  for (const until = performance.now() + patienceMs; (await standing()) < all; await pause(20))
    if (performance.now() > until) throw new Error(`${name} has ${await standing()} of ${all} before the outage`);
  await proxy.refuse();
  await pause(outageMs);
  if ((await standing()) > 0) throw new Error('the outage was too short: something still stands');
  await proxy.accept();
  const backAt = performance.now();
  let count = await standing();
  for (; count < all && performance.now() - backAt < patienceMs; count = await standing()) await pause(20);
  return { backMs: performance.now() - backAt, missing: Math.max(0, all - count) };
}
