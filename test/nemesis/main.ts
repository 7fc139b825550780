// `npm run nemesis`: clusters of real processes, under load, through what happens to processes, wires, disks and clocks.
import { parseArgs } from 'node:util';
import { type Report, runMeasurement, runScenario } from './run.ts';
import type { Scenario } from './scenario.ts';
import { scenarios } from './scenarios/index.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    /** etcd: to know that the harness and its checkers judge the original as correct. */
    target: { type: 'string', default: 'conclave' },
    /** One round of every scenario, without the measurements: for CI. */
    short: { type: 'boolean', default: false },
    rounds: { type: 'string' },
    /** At least so many members in every scenario that has more than one. */
    members: { type: 'string' },
    /** The whole list again and again, for so long. */
    minutes: { type: 'string', default: '0' },
    heartbeat: { type: 'string', default: '100' },
    election: { type: 'string', default: '1000' },
    list: { type: 'boolean', default: false },
  },
});

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => process.exit(1));

const kind = values.target === 'etcd' ? 'etcd' : 'conclave';
const options = { kind, heartbeatMs: Number(values.heartbeat), electionMs: Number(values.election) } as const;

function sized(scenario: Scenario): Scenario {
  return values.members === undefined || scenario.size === 1
    ? scenario
    : { ...scenario, size: Math.max(scenario.size, Number(values.members)) };
}

function roundsOf({ rounds, roundsInShort }: Scenario): number {
  if (values.rounds !== undefined) return Number(values.rounds);
  return values.short ? (roundsInShort ?? 1) : (rounds ?? 1);
}

async function main(): Promise<boolean> {
  const chosen = scenarios.filter(({ name }) => positionals.length === 0 || positionals.some((word) => name.includes(word)));
  if (chosen.length === 0) throw new Error(`no scenario is called ${positionals.join(' or ')}`);
  const startedAt = performance.now();
  const reports: Report[] = [];
  do {
    for (const scenario of chosen) {
      if (kind === 'etcd' && scenario.oursOnly !== undefined) {
        say(`skipped   ${scenario.name}: ${scenario.oursOnly}`);
        continue;
      }
      if (values.short && 'measure' in scenario) {
        say(`skipped   ${scenario.name}: it is about the machine too, and belongs on one that does nothing else`);
        continue;
      }
      const report =
        'measure' in scenario
          ? await runMeasurement(scenario, options)
          : await runScenario(sized(scenario), { ...options, rounds: roundsOf(scenario) });
      reports.push(report);
      show(report);
    }
  } while (performance.now() - startedAt < Number(values.minutes) * 60_000);
  const failed = reports.filter(({ problems }) => problems.length > 0).length;
  say(`${reports.length - failed} of ${reports.length} passed in ${((performance.now() - startedAt) / 1000).toFixed(0)} s`);
  return failed === 0;
}

function show({ scenario, seconds, problems, notes, before, after, failed }: Report): void {
  const verdict = problems.length === 0 ? 'passed' : 'FAILED';
  const calls = before === 0 ? '' : `: ${before} calls answered before, ${after} after, ${failed} not`;
  say(`${verdict} ${seconds.toFixed(1).padStart(6)} s  ${scenario}${calls}`);
  for (const note of notes) say(`            ${note}`);
  for (const problem of problems) say(`    ${problem}`);
}

if (values.list)
  for (const { name, size, oursOnly } of scenarios)
    say(`${name} (${size} members)${oursOnly === undefined ? '' : `, ours only: ${oursOnly}`}`);
else process.exitCode = (await main()) ? 0 : 1;
