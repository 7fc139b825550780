// `npm run bench`: us beside the others, in one run and in turns, because the speed of a machine drifts by more than most differences.
//
//   npm run bench -- [--rounds 5] [--ms 1000] [--only put]            servers of one member; clients: our SDK and npm etcd3
//   npm run bench -- cluster [--rounds 5] [--ms 1000] [--only put]    three members, requests at the leader and at a follower
//   npm run bench -- failover [--rounds 20]                           the leader killed: time to the next acknowledged write
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
import { benchSingle } from './single.ts';

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: 'string' },
    ms: { type: 'string', default: '1000' },
    only: { type: 'string', default: '' },
    heartbeat: { type: 'string', default: '100' },
    election: { type: 'string', default: '1000' },
    out: { type: 'string' },
  },
});
const what = positionals[0] ?? 'single';
const etcd = etcdBinary('3.5', 'etcd') === undefined ? '3.4' : '3.5';
if (etcdBinary(etcd, 'etcd') === undefined) {
  console.error(
    'bench compares with a real etcd: set ETCD_BIN_DIR to a folder holding 3.5/etcd (on Debian: export ETCD_BIN_DIR=$(.ci/etcd.sh)).',
  );
  process.exit(1);
}
const ms = Number(options.ms);
const rounds = Number(options.rounds ?? (what === 'failover' ? 20 : 5));
const common = {
  rounds,
  ms,
  etcd,
  only: options.only,
  heartbeatMs: Number(options.heartbeat),
  electionMs: Number(options.election),
} as const;
const benches: Readonly<Record<string, () => Promise<unknown>>> = {
  single: () => benchSingle(common),
  cluster: () => benchCluster(common),
  failover: () => benchFailover(common),
};
const bench = benches[what];
if (bench === undefined) {
  console.error(`there is no benchmark ${what}; there are ${Object.keys(benches).join(', ')}`);
  process.exit(1);
}
console.log(`${machine}; ${rounds} rounds, ours / theirs, medians; x: ratio, median (lowest–highest round)\n`);
const result = await bench();
const out = options.out ?? `bench/results/${what}.json`;
mkdirSync(dirname(out), { recursive: true });
writeFileSync(out, `${JSON.stringify({ machine, ...common, etcd: etcdVersion(etcd), result }, null, 2)}\n`);
console.log(`\nwritten to ${out}`);
