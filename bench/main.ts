// `npm run bench`: us beside the others, in one run and in turns, because the speed of a machine drifts by more than most differences.
//
//   npm run bench -- [--rounds 5] [--ms 1000] [--only put]            servers of one member; clients: our SDK and npm etcd3
//   npm run bench -- cluster [--rounds 5] [--ms 1000] [--only put]    three members, requests at the leader and at a follower
//   npm run bench -- failover [--rounds 20]                           the leader killed: time to the next acknowledged write
//   npm run bench -- heartbeats [--ms 60000] [--keys 1000000]         ours alone: gaps between heartbeats under the heaviest load
//
// Also: [--heartbeat 100] [--election 1000] for the clusters, [--out bench/results/<what>.json]. Ratios are ours divided by theirs, round by
// round; what is printed is the median and the spread. Above 1 is better for rates, below 1 is better for CPU and for times.
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { parseArgs } from 'node:util';
import { etcdBinary, etcdVersion } from '@conclave/testkit';
import { benchCluster } from './cluster.ts';
import { benchFailover } from './failover.ts';
import { machine } from './figures.ts';
import { benchHeartbeats } from './heartbeats.ts';
import { benchSingle } from './single.ts';

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: 'string' },
    ms: { type: 'string' },
    only: { type: 'string', default: '' },
    keys: { type: 'string', default: '1000000' },
    heartbeat: { type: 'string', default: '100' },
    election: { type: 'string', default: '1000' },
    out: { type: 'string' },
  },
});
const what = positionals[0] ?? 'single';
const etcd = etcdBinary('3.5', 'etcd') === undefined ? '3.4' : '3.5';
const timing = { heartbeatMs: Number(options.heartbeat), electionMs: Number(options.election) };
const compared = { rounds: Number(options.rounds ?? 5), ms: Number(options.ms ?? 1000), only: options.only, etcd, ...timing } as const;
const benches: Readonly<Record<string, () => Promise<unknown>>> = {
  single: () => benchSingle(compared),
  cluster: () => benchCluster(compared),
  failover: () => benchFailover({ ...compared, rounds: Number(options.rounds ?? 20) }),
  heartbeats: () => benchHeartbeats({ ms: Number(options.ms ?? 60_000), keys: Number(options.keys), ...timing }),
};
const bench = benches[what];
if (bench === undefined) {
  console.error(`there is no benchmark ${what}; there are ${Object.keys(benches).join(', ')}`);
  process.exit(1);
}
const hasEtcd = etcdBinary(etcd, 'etcd') !== undefined;
if (!hasEtcd && what !== 'heartbeats') {
  console.error(
    'bench compares with a real etcd: set ETCD_BIN_DIR to a folder holding 3.5/etcd (on Debian: export ETCD_BIN_DIR=$(.ci/etcd.sh)).',
  );
  process.exit(1);
}
console.log(`${machine}; ours / theirs, medians over the rounds; x: ratio, median (lowest–highest round)\n`);
const result = await bench();
const out = options.out ?? `bench/results/${what}.json`;
mkdirSync(dirname(out), { recursive: true });
writeFileSync(out, `${JSON.stringify({ machine, ...(hasEtcd && { etcd: etcdVersion(etcd) }), options, result }, null, 2)}\n`);
console.log(`\nwritten to ${out}`);
