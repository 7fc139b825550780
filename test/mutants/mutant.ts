import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** One change of the source. `find` must occur exactly once in the file. */
export interface Edit {
  /** From the root of the repository. */
  readonly file: string;
  readonly find: string;
  readonly replace: string;
}

/** What must find a mutant: a test, or a number of seeds of one. */
export interface Finder {
  /** A test file, from the root. */
  readonly file: string;
  /** Only tests whose names contain this. */
  readonly test?: string;
  /** Seeds it may use, for a finder that draws what happens. The mutant is found within them, and without it they pass. */
  readonly seeds?: number;
  /** Variables that steer the finder. */
  readonly environment?: Readonly<Record<string, string>>;
}

/** A bug of history, brought back. Production code has no switch for it: the source is changed while the finder loads it. */
export interface Mutant {
  readonly name: string;
  /** Where it was met, or described. */
  readonly origin: string;
  readonly edits: readonly Edit[];
  /** Each of them must find it. */
  readonly finders: readonly Finder[];
}

/** Whole clusters with their clients, simulated. */
export const simulated = (seeds: number): Finder => ({ file: 'test/mutants/sim.finder.ts', seeds });

export const root: string = fileURLToPath(new URL('../..', import.meta.url));

/** @throws when `find` does not occur exactly once: the source has moved on, and the mutant must follow. */
export function applyEdit(source: string, { file, find, replace }: Edit, mutant: string): string {
  const parts = source.split(find);
  if (parts.length !== 2) {
    throw new Error(`mutant ${mutant} is stale: what it replaces occurs ${parts.length - 1} times in ${file}, not once:\n${find}`);
  }
  return parts.join(replace);
}

/** Files with all their edits made. */
export function mutatedFiles({ name, edits }: Mutant): ReadonlyMap<string, string> {
  const files = new Map<string, string>();
  for (const edit of edits) {
    const source = files.get(edit.file) ?? readFileSync(`${root}/${edit.file}`, 'utf8');
    files.set(edit.file, applyEdit(source, edit, name));
  }
  return files;
}
