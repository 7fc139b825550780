// `npm run compare`: items 1 to 9 of what was asked of the SDK, asked of it and of npm etcd3 in one run.
//
//   npm run compare -- [--items 1,2,7] [--server etcd|conclave] [--version 3.5]
//
// Writes what was asked of etcd into docs/reference/comparison.md, and leaves the other items there as they are; ends with 1 when ours misses a bar.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { type Client, connect } from '@conclave/sdk';
import { type EtcdLine, etcdBinary, launchEtcd, launchServer } from '@conclave/testkit';
import { machine } from '../figures.ts';
import { compareBlackHoles } from './black-hole.ts';
import { compareCompaction } from './compaction.ts';
import type { Cell, Comparison } from './compared.ts';
import { compareLostAnswers } from './lost-answers.ts';
import { compareMemberLoss } from './member-loss.ts';
import { compareOutage } from './outage.ts';
import { compareSlowConsumer, compareSpeed } from './speed.ts';
import { compareTokens } from './tokens.ts';
import { compareWatchCuts } from './watch-cuts.ts';

const { values: options } = parseArgs({
  options: {
    items: { type: 'string', default: '1,2,3,4,5,6,7,8,9' },
    server: { type: 'string', default: 'etcd' },
    version: { type: 'string', default: '3.5' },
  },
});
if (options.server !== 'etcd' && options.server !== 'conclave') throw new Error(`--server is etcd or conclave, not ${options.server}`);
const kind = options.server;
const version = options.version as EtcdLine;
if (etcdBinary(version, 'etcd') === undefined) {
  console.error(
    'compare needs a real etcd: set ETCD_BIN_DIR to a folder holding 3.5/etcd (on Debian: export ETCD_BIN_DIR=$(.ci/etcd.sh)).',
  );
  process.exit(1);
}

type Ask = (address: string, direct: Client) => Promise<readonly Comparison[]>;
const items: ReadonlyMap<number, Ask> = new Map<number, Ask>([
  [1, compareWatchCuts],
  [2, compareLostAnswers],
  [3, compareBlackHoles],
  [4, compareCompaction],
  [5, () => compareTokens(version)],
  [6, () => compareMemberLoss(kind, version)],
  [7, compareSpeed],
  [8, compareOutage],
  [9, compareSlowConsumer],
]);
const asked = options.items.split(',').map(Number);

// What a peer's client lets go unheard must not end the comparison; it is told.
const unheard: string[] = [];
process.on('unhandledRejection', (reason) => unheard.push(String(reason)));

const rows: Comparison[] = [];
let serverName = '';
for (const item of asked) {
  const ask = items.get(item);
  if (ask === undefined) throw new Error(`there is no item ${item}`);
  const startedAt = performance.now();
  // One of its own each, so that nothing of one item is in the figures of the next.
  await using server =
    kind === 'conclave'
      ? await launchServer()
      : await launchEtcd({ version, flags: ['--quota-backend-bytes', '8589934592', '--max-txn-ops', '1000'] });
  serverName = server.name;
  await using direct = await connect({ endpoints: server.address, deadlineMs: 30_000 });
  const answers = await ask(server.address, direct);
  rows.push(...answers);
  for (const row of answers) console.log(line(row));
  console.log(`(item ${item}: ${((performance.now() - startedAt) / 1000).toFixed(0)} s)`);
}
if (unheard.length > 0) console.log(`\n${unheard.length} rejections that nobody could hear, such as: ${unheard[0]}`);

const missed = rows.filter(({ ours }) => ours.isMet === false);
const file = 'docs/reference/comparison.md';
if (kind === 'etcd') {
  writeFileSync(file, page());
  console.log(`\nwritten to ${file}`);
}
for (const { item, measure, ours } of missed) console.log(`MISSED  ${item}: ${measure}: ${ours.text}`);
process.exit(missed.length === 0 ? 0 : 1);

function line({ item, measure, bar, ours, etcd3 }: Comparison): string {
  return `| ${item} | ${measure} | ${bar} | ${shown(ours)} | ${shown(etcd3)} |`;
}

function shown({ text, isMet }: Cell): string {
  return isMet === undefined ? text : `${isMet ? '✓' : '✗'} ${text}`;
}

/** The rows of before, of the items that were not asked now. */
function earlier(): readonly string[] {
  if (!existsSync(file)) return [];
  return readFileSync(file, 'utf8')
    .split('\n')
    .filter((text) => /^\| \d/.test(text) && !asked.includes(Number(text.split('|')[1])));
}

function page(): string {
  const lines = [...earlier(), ...rows.map(line)].sort((a, b) => Number(a.split('|')[1]) - Number(b.split('|')[1]));
  return `# Beside npm \`etcd3\`

Written by \`npm run compare\`, which asks the same of both clients, in turns or side by side, in one run an item. Do not edit it.

Server: ${serverName}. Machine: ${machine}, shared by the server, the clients and the proxy between them. ✓ and ✗: whether the bar is met.

| item | what | bar | \`@conclave/sdk\` | npm \`etcd3\` 1.1.2 |
|---|---|---|---|---|
${lines.join('\n')}
`;
}
