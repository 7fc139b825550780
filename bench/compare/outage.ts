import { type Client, prefix } from '@conclave/sdk';
import { TcpProxy } from '@conclave/testkit';
import { type ClientName, type Comparison, cell, ofBoth, pause } from './compared.ts';
import { startWorker } from './worker-process.ts';

const ttlSeconds = 2;
const registrations = 50;
const candidacies = 10;
/** Of several lengths: who tries again every so often may be lucky once. */
const outagesMs = [5_000, 7_000, 9_000];
const patienceMs = 20_000;

/** Item 8: the cluster is away for longer than every TTL; until when all that stood stands again. */
export async function compareOutage(address: string, direct: Client): Promise<readonly Comparison[]> {
  const back = await ofBoth((name) => away(name, address, direct));
  const show = ({ backMs, missing }: Back) =>
    cell(missing > 0 ? `${missing} missing after ${patienceMs / 1000} s` : `${backMs.toFixed(0)} ms`, missing === 0 && backMs <= 2_000);
  return [
    {
      item: 8,
      measure: `${registrations} registrations and ${candidacies} candidacies of ${ttlSeconds} s, cluster away for ${outagesMs.map((ms) => ms / 1000).join(', ')} s; the longest`,
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
  const present = `outage/${name}/`;
  // In a process of its own: one that tries again without a pause keeps everybody else in its process from doing anything.
  using _ = startWorker('stand', name, proxy.address, [present, `${registrations}`, `outage-${name}-`, `${candidacies}`, `${ttlSeconds}`]);
  const standing = async (): Promise<number> => {
    const registered = (await direct.list(prefix(present))).count;
    // The peer puts a folder of its own before.
    const candidates = (await direct.list(prefix(`outage-${name}-`))).count + (await direct.list(prefix(`election/outage-${name}-`))).count;
    return registered + candidates;
  };
  const all = registrations + candidacies;
  for (const until = performance.now() + patienceMs; (await standing()) < all; await pause(20))
    if (performance.now() > until) throw new Error(`${name} has ${await standing()} of ${all} before the outage`);
  const worst = { backMs: 0, missing: 0 };
  for (const outageMs of outagesMs) {
    await proxy.refuse();
    await pause(outageMs);
    if ((await standing()) > 0) throw new Error('the outage was too short: something still stands');
    await proxy.accept();
    const backAt = performance.now();
    let count = await standing();
    for (; count < all && performance.now() - backAt < patienceMs; count = await standing()) await pause(20);
    worst.backMs = Math.max(worst.backMs, performance.now() - backAt);
    worst.missing = Math.max(worst.missing, all - count);
  }
  return worst;
}
