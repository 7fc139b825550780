// `npm run sim -- --seeds N`: simulated clusters, one after the other, each from its seed. See docs/internals/proofs.md.
import { execFileSync, fork } from 'node:child_process';
import { appendFileSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { type History, historyLines, showFinding } from '@conclave/testkit';
import { drawPlan, type FaultKind, faultKinds, type PlanLimits } from './plan.ts';
import { runSeed, runSeeds, type SeedOutcome, type SeedsOptions } from './run-seeds.ts';
import { replayCommand, shrink } from './shrink.ts';
import { simulate } from './simulation.ts';

const { values: flags } = parseArgs({
  options: {
    seeds: { type: 'string', default: '20' },
    from: { type: 'string', default: '1' },
    seed: { type: 'string' },
    jobs: { type: 'string', default: '1' },
    ledger: { type: 'string' },
    'least-speed': { type: 'string', default: '0' },
    without: { type: 'string', default: '' },
    'faulty-ms': { type: 'string' },
    clients: { type: 'string' },
    members: { type: 'string' },
    'keep-going': { type: 'boolean', default: false },
    'no-shrink': { type: 'boolean', default: false },
    history: { type: 'string' },
    verbose: { type: 'boolean', default: false },
    worker: { type: 'boolean', default: false },
  },
});

const out = (line: string): void => void process.stdout.write(`${line}\n`);

function numberOf(flag: string): number {
  const number = Number(flag);
  if (!Number.isSafeInteger(number) || number < 0) throw new TypeError(`not a number: ${flag}`);
  return number;
}

function limitsOf(): PlanLimits {
  const kinds: readonly string[] = [...faultKinds, 'network', 'clockSkew'];
  const without = flags.without.split(',').filter((word) => word !== '');
  for (const kind of without) if (!kinds.includes(kind)) throw new TypeError(`no kind of fault: ${kind} (known: ${kinds.join(', ')})`);
  return {
    ...(without.length > 0 && { without: without as FaultKind[] }),
    ...(flags['faulty-ms'] !== undefined && { faultyMs: numberOf(flags['faulty-ms']) }),
    ...(flags.clients !== undefined && { clients: numberOf(flags.clients) }),
    ...(flags.members !== undefined && { members: numberOf(flags.members) }),
  };
}

function commit(): string {
  try {
    const git = (...args: string[]): string => execFileSync('git', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
    return `${git('rev-parse', '--short', 'HEAD')}${git('status', '--porcelain', '--', 'packages', 'test/sim') === '' ? '' : '+'}`;
  } catch {
    return 'unknown';
  }
}

/** Seconds that were simulated, over seconds of processor time. */
function speed(simulatedMs: number, cpuMs: number): string {
  return `${(simulatedMs / cpuMs).toFixed(0)} times real time`;
}

async function one(seed: number, limits: PlanLimits): Promise<boolean> {
  out(`seed ${seed}@${commit()}: ${JSON.stringify(drawPlan(seed, limits))}`);
  if (flags.verbose || flags.history !== undefined) {
    const onHistory = (history: History): void => {
      if (flags.history !== undefined) writeFileSync(flags.history, [...historyLines(history)].join('\n'));
    };
    const result = await simulate(drawPlan(seed, limits), { isVerbose: flags.verbose, onHistory });
    for (const finding of result.findings) out(showFinding(finding));
    return result.findings.length === 0;
  }
  const { result, cpuMs } = await runSeed(seed, limits, true);
  out(`${result.summary}; ${result.operations} operations, trace ${result.traceHash} of ${result.events} events`);
  out(
    `${(result.simulatedMs / 1000).toFixed(0)} simulated seconds in ${(cpuMs / 1000).toFixed(1)} s of processor time: ${speed(result.simulatedMs, cpuMs)}`,
  );
  for (const finding of result.findings) out(showFinding(finding));
  return result.findings.length === 0;
}

async function report(failure: SeedOutcome, limits: PlanLimits): Promise<void> {
  out(`\nseed ${failure.seed}@${commit()} failed: ${failure.result.summary}`);
  for (const finding of failure.result.findings.slice(0, 3)) out(showFinding(finding));
  out(`again:  ${replayCommand(failure.seed, limits)}`);
  if (flags['no-shrink']) return;
  const { limits: fewer, outcome, runs } = await shrink(failure, limits);
  out(`\nless that fails (found in ${runs} runs): ${outcome.result.summary}`);
  for (const finding of outcome.result.findings.slice(0, 3)) out(showFinding(finding));
  out(`again:  ${replayCommand(failure.seed, fewer)}`);
}

/** What a worker process tells of one seed. */
interface Told {
  readonly outcome: SeedOutcome;
}

/** Seeds are handed to workers in portions: large enough that their processes get warm, small enough to end together. */
const portion = 10;

function inWorkers(jobs: number, options: SeedsOptions): Promise<void> {
  let next = options.from;
  const end = options.from + options.count;
  let isOver = false;
  const worker = (): Promise<void> =>
    new Promise((resolve, reject) => {
      const child = fork(process.argv[1] ?? '', ['--worker', ...process.argv.slice(2)], { execArgv: process.execArgv });
      const give = (): void => {
        if (next >= end || isOver) {
          child.disconnect();
          return;
        }
        const count = Math.min(portion, end - next);
        child.send({ from: next, count });
        next += count;
      };
      child.on('message', (message: Told | 'ready') => {
        if (message === 'ready') give();
        else {
          options.onSeed?.(message.outcome);
          isOver ||= message.outcome.result.findings.length > 0 && options.keepGoing !== true;
        }
      });
      child.on('error', reject);
      child.on('exit', (code) => (code === 0 ? resolve() : reject(new Error(`a worker ended with code ${code}`))));
    });
  return Promise.all(Array.from({ length: jobs }, worker)).then(() => undefined);
}

function beWorker(limits: PlanLimits): void {
  const tell = (message: Told | 'ready'): void => void process.send?.(message);
  process.on('message', ({ from, count }: { readonly from: number; readonly count: number }) => {
    const options = { ...limits, from, count, keepGoing: flags['keep-going'], onSeed: (outcome: SeedOutcome) => tell({ outcome }) };
    void runSeeds(options).then(() => tell('ready'));
  });
  tell('ready');
}

async function many(limits: PlanLimits): Promise<boolean> {
  const [from, count, jobs] = [numberOf(flags.from), numberOf(flags.seeds), numberOf(flags.jobs)];
  const failed: SeedOutcome[] = [];
  let [seeds, simulatedMs, cpuMs, operations] = [0, 0, 0, 0];
  /** Clusters of three: what the speed is stated for. */
  const ofThree = { simulatedMs: 0, cpuMs: 0 };
  const onSeed = (outcome: SeedOutcome): void => {
    seeds += 1;
    simulatedMs += outcome.result.simulatedMs;
    cpuMs += outcome.cpuMs;
    operations += outcome.result.operations;
    if (drawPlan(outcome.seed, limits).members === 3) {
      ofThree.simulatedMs += outcome.result.simulatedMs;
      ofThree.cpuMs += outcome.cpuMs;
    }
    if (outcome.result.findings.length > 0) {
      failed.push(outcome);
      out(`seed ${outcome.seed} failed: [${outcome.result.findings[0]?.rule}] ${outcome.result.findings[0]?.what.slice(0, 200)}`);
    }
    if (seeds % 50 === 0) out(`${seeds} seeds, ${(simulatedMs / 3_600_000).toFixed(1)} simulated hours, ${speed(simulatedMs, cpuMs)}`);
  };
  const options = { ...limits, from, count, keepGoing: flags['keep-going'], onSeed };
  if (jobs <= 1) await runSeeds(options);
  else await inWorkers(jobs, options);
  const hours = (simulatedMs / 3_600_000).toFixed(1);
  out(
    `${seeds} seeds from ${from}@${commit()}: ${failed.length} failed; ${hours} simulated hours, ${operations} operations, ${speed(simulatedMs, cpuMs)}`,
  );
  const leastSpeed = numberOf(flags['least-speed']);
  const isFast = ofThree.cpuMs === 0 || ofThree.simulatedMs / ofThree.cpuMs >= leastSpeed;
  if (ofThree.cpuMs > 0)
    out(`clusters of three: ${speed(ofThree.simulatedMs, ofThree.cpuMs)}${isFast ? '' : `, which is less than ${leastSpeed}`}`);
  const { ledger } = flags;
  if (ledger !== undefined) {
    const day = new Date().toISOString().slice(0, 10);
    const result = failed.length === 0 ? 'none failed' : `failed: ${failed.map(({ seed }) => seed).join(' ')}`;
    appendFileSync(ledger, `- ${day} ${commit()} seeds ${from}-${from + seeds - 1}, ${hours} h: ${result}\n`);
  }
  const first = failed.toSorted((a, b) => a.seed - b.seed)[0];
  if (first !== undefined) await report(first, limits);
  return failed.length === 0 && isFast;
}

const limits = limitsOf();
if (flags.worker) beWorker(limits);
else {
  const isGood = flags.seed === undefined ? await many(limits) : await one(numberOf(flags.seed), limits);
  process.exit(isGood ? 0 : 1);
}
