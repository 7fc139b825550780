// `npm run conformance`: the conformance suite on every target there is. `--all`: a missing etcd is a failure. `--target NAME`, `--only TEXT`:
// a part of it. Prints what failed, then one line a target.
import { parseArgs } from 'node:util';
import { cases } from '../test/conformance/cases/index.ts';
import { Session, type Verdict } from '../test/conformance/session.ts';
import type { Target } from '../test/conformance/target.ts';
import { etcdTarget } from '../test/conformance/targets/etcd.ts';
import { commitPerEntryTarget, inMemoryTarget, inProcessTarget, stalledTarget } from '../test/conformance/targets/in-process.ts';
import { serverProcessTarget } from '../test/conformance/targets/server-process.ts';

const { values } = parseArgs({
  options: {
    all: { type: 'boolean', default: false },
    target: { type: 'string' },
    only: { type: 'string' },
    slow: { type: 'boolean', default: false },
  },
});

const selected = cases.filter((one) => values.only === undefined || one.name.includes(values.only));
const newest = etcdTarget('3.5');
const oldest = etcdTarget('3.4');
const targets = [inProcessTarget, inMemoryTarget, stalledTarget, commitPerEntryTarget, serverProcessTarget, newest, oldest].filter(
  (target): target is Target => target !== undefined && fits(target),
);

function fits(target: Target): boolean {
  return values.target === undefined || `${target.name} ${target.version}`.includes(values.target);
}

interface Tally {
  readonly target: Target;
  readonly counts: Record<Verdict['kind'], number>;
  readonly seconds: number;
}

async function runAll(target: Target): Promise<Tally> {
  const counts: Tally['counts'] = { passed: 0, failed: 0, skipped: 0, differs: 0 };
  const started = performance.now();
  console.log(`${target.name} ${target.version}`);
  await using session = new Session(target);
  for (const one of selected) {
    const began = performance.now();
    const verdict = await session.run(one);
    counts[verdict.kind]++;
    if (verdict.kind === 'failed') console.log(`  FAILED ${one.name}\n${indented(verdict.error)}`);
    const took = performance.now() - began;
    if (values.slow && took > 500) console.log(`  ${took.toFixed(0)} ms ${one.name}`);
  }
  return { target, counts, seconds: (performance.now() - started) / 1000 };
}

function indented(error: unknown): string {
  const told = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return told.replaceAll(/^/gm, '    ');
}

const tallies: Tally[] = [];
for (const target of targets) tallies.push(await runAll(target));

console.log(
  `\n${'target'.padEnd(30)}${'version'.padEnd(10)}${'passed'.padStart(8)}${'failed'.padStart(8)}${'skipped'.padStart(9)}${'differs'.padStart(9)}${'time'.padStart(9)}`,
);
for (const { target, counts, seconds } of tallies) {
  const numbers = `${`${counts.passed}`.padStart(8)}${`${counts.failed}`.padStart(8)}${`${counts.skipped}`.padStart(9)}${`${counts.differs}`.padStart(9)}`;
  console.log(`${target.name.padEnd(30)}${target.version.padEnd(10)}${numbers}${`${seconds.toFixed(1)} s`.padStart(9)}`);
}
console.log(`${selected.length} cases`);
if (newest === undefined || oldest === undefined) {
  const missing = [newest === undefined && '3.5', oldest === undefined && '3.4'].filter(Boolean).join(', ');
  console.log(`No etcd ${missing}: set ETCD_BIN_DIR to a folder holding ${missing}/etcd to run the suite against it too.`);
}
const failed = tallies.some(({ counts }) => counts.failed > 0) || (values.all && newest === undefined && oldest === undefined);
process.exit(failed ? 1 : 0);
