// `npm run mutants`: bugs that systems of this kind have had are brought back one by one, and each must be found by the test named for it, within its
// budget. What cannot find a planted bug proves nothing when it finds none.
import { parseArgs } from 'node:util';
import { type Finder, type Mutant, simulated } from './mutant.ts';
import { mutants } from './mutants.ts';
import { type Finding, runFinder } from './run-finder.ts';

const { values: flags, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    jobs: { type: 'string', default: '2' },
    /** Only the mutants: for looking at some of them. */
    'no-baseline': { type: 'boolean', default: false },
    verbose: { type: 'boolean', default: false },
    /** Lets so many seeds of the simulation look for the mutants, whoever is named for them. */
    sim: { type: 'string' },
  },
});

const out = (line: string): void => void process.stdout.write(`${line}\n`);

/** One mutant, and one finder that must find it. */
interface Hunt {
  readonly mutant: Mutant;
  readonly finder: Finder;
}

/** Finders that differ in nothing but the budget are tried once without a mutant, with the largest. */
function baselines(chosen: readonly Hunt[]): Finder[] {
  const byTest = new Map<string, Finder>();
  for (const { finder } of chosen) {
    const place = JSON.stringify([finder.file, finder.test, finder.environment]);
    const known = byTest.get(place);
    if (known === undefined || (finder.seeds ?? 0) > (known.seeds ?? 0)) byTest.set(place, finder);
  }
  return [...byTest.values()];
}

/** Runs all, so many at a time, and keeps their order. */
async function atOnce<T, R>(items: readonly T[], jobs: number, run: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  let next = 0;
  const work = async (): Promise<void> => {
    for (let at = next++; at < items.length; at = next++) results[at] = await run(items[at] as T);
  };
  await Promise.all(Array.from({ length: jobs }, work));
  return results;
}

const budget = ({ seeds }: Finder): string => (seeds === undefined ? '' : `${seeds} seeds`);

/** Which seed it was, if the finder says so. */
const seedOf = (message: string): string => /SEED=(\d+)/.exec(message)?.[1] ?? '';

const brief = (message: string): string => {
  const lines = message.split('\n').map((line) => line.trim());
  return (lines.find((line) => /SEED=/.test(line)) ?? lines[0] ?? '').slice(0, 160);
};

const named = mutants.filter(({ name }) => positionals.length === 0 || positionals.some((word) => name.includes(word)));
const everywhere = flags.sim === undefined ? undefined : [simulated(Number(flags.sim))];
const chosen: readonly Hunt[] = named.flatMap((mutant) => (everywhere ?? mutant.finders).map((finder) => ({ mutant, finder })));
const jobs = Number(flags.jobs);
let failed = 0;

if (!flags['no-baseline']) {
  const finders = baselines(chosen);
  out(`Without a mutant, ${finders.length} finders must find nothing:`);
  await atOnce(finders, jobs, async (finder) => {
    const { isFailed, message, seconds } = await runFinder(finder);
    if (isFailed) failed++;
    out(`  ${isFailed ? 'FAILED' : 'passed'}  ${seconds.toFixed(0).padStart(4)} s  ${finder.file} ${finder.test ?? ''} ${budget(finder)}`);
    if (isFailed) out(message);
  });
}

out(`\n${named.length} mutants must be found:`);
await atOnce(chosen, jobs, async ({ mutant: { name, origin }, finder }) => {
  const finding: Finding | Error = await runFinder(finder, name).catch((error: unknown) =>
    error instanceof Error ? error : new Error(String(error)),
  );
  const isFound = !(finding instanceof Error) && finding.isFailed;
  if (!isFound) failed++;
  const seconds = finding instanceof Error ? '' : finding.seconds.toFixed(0);
  const seed = finding instanceof Error ? '' : seedOf(finding.message);
  out(
    `  ${(finding instanceof Error ? 'BROKEN' : isFound ? 'found' : 'MISSED').padEnd(6)}  ${seconds.padStart(4)} s  ${name.padEnd(36)} ` +
      `${(seed === '' ? '' : `seed ${seed} of ${finder.seeds}`).padEnd(18)} ${finder.file}`,
  );
  if (finding instanceof Error) out(finding.message);
  else if (flags.verbose || !isFound) out(`          ${origin}\n          ${brief(finding.message)}`);
});

out(failed === 0 ? '\nEvery mutant is found.' : `\n${failed} failures.`);
process.exit(failed === 0 ? 0 : 1);
