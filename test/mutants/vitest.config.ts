import { writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { defineConfig, type Plugin } from 'vitest/config';
import base from '../../vitest.config.ts';
import { mutatedFiles, root } from './mutant.ts';
import { mutants } from './mutants.ts';

/** Puts the mutant that `CONCLAVE_MUTANT` names in the place of the source, and says so in the file that `CONCLAVE_MUTANT_SEEN` names. */
function mutation(): Plugin {
  const name = process.env['CONCLAVE_MUTANT'];
  const mutant = mutants.find((one) => one.name === name);
  const files = mutant === undefined ? new Map<string, string>() : mutatedFiles(mutant);
  const byPath = new Map([...files].map(([file, source]) => [resolve(root, file), source]));
  return {
    name: 'mutation',
    enforce: 'pre',
    load(id) {
      const source = byPath.get(id.split('?')[0] as string);
      const seen = process.env['CONCLAVE_MUTANT_SEEN'];
      if (source !== undefined && seen !== undefined) writeFileSync(seen, '');
      return source;
    },
  };
}

export default defineConfig({
  ...base,
  root,
  plugins: [mutation()],
  test: {
    ...base.test,
    include: ['packages/*/src/**/*.test.ts', 'test/**/*.test.ts', 'test/mutants/*.finder.ts'],
    reporters: [],
    testTimeout: 600_000,
    maxWorkers: 1,
    bail: 1,
    cache: false,
  },
});
