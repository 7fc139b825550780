import { existsSync } from 'node:fs';
import { expect, test } from 'vitest';
import { applyEdit, mutatedFiles, root } from './mutant.ts';
import { mutants } from './mutants.ts';

test.each(mutants.map((mutant) => [mutant.name, mutant] as const))('what %s replaces is still in the source, once', (_, mutant) => {
  expect(mutatedFiles(mutant).size).toBeGreaterThan(0);
  for (const { file } of mutant.finders) expect(existsSync(`${root}/${file}`)).toBe(true);
});

test('names tell mutants apart', () => {
  expect(new Set(mutants.map(({ name }) => name)).size).toBe(mutants.length);
});

test('an edit of what is not there, or there twice, is refused', () => {
  const edit = { file: 'a.ts', find: 'b', replace: 'c' };
  expect(applyEdit('abd', edit, 'm')).toBe('acd');
  expect(() => applyEdit('ad', edit, 'm')).toThrow('mutant m is stale: what it replaces occurs 0 times in a.ts');
  expect(() => applyEdit('abb', edit, 'm')).toThrow('occurs 2 times');
});
