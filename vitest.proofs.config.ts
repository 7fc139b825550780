import { defineConfig } from 'vitest/config';
import base from './vitest.config.ts';

/** The long proofs: `*.proof.ts`, one file at a time (they measure, and they load the machine). Run by `npm run ci:proofs`. */
export default defineConfig({
  ...base,
  test: {
    ...base.test,
    include: ['test/**/*.proof.ts'],
    testTimeout: 1_200_000,
    hookTimeout: 60_000,
    fileParallelism: false,
    maxWorkers: 1,
  },
});
