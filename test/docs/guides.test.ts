// The programs of the guides compile against the real types. That they run is for the tests of each page to see.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { compilerErrors, writeProject } from './example-project.ts';
import { givenNames } from './given.ts';

const guides = join('docs', 'guides');
const dir = join('.cache', 'guide-programs');

/** Pages of which each piece stands for itself, and its reader has the rest. The others are one program from top to bottom. */
const inPieces = ['elections.md', 'from-etcd3.md', 'locks.md', 'reads-and-transactions.md'];

function programsOf(name: string): readonly string[] {
  const pieces = [...readFileSync(join(guides, name), 'utf8').matchAll(/^```ts\n([\s\S]*?)^```$/gm)].map((match) => match[1] ?? '');
  return inPieces.includes(name) ? pieces : [pieces.join('\n')];
}

test('the programs of the guides compile', () => {
  const pages = readdirSync(guides).map((name) => ({ name, place: join(guides, name), examples: programsOf(name) }));
  const programs = writeProject(pages, { dir, givenNames, address: '127.0.0.1:2379' });
  // Whoever sees next to nothing misses nothing.
  expect(programs.length).toBeGreaterThan(pages.length);
  expect(compilerErrors(dir, programs)).toBe('');
});
