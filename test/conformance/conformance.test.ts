import { existsSync } from 'node:fs';
import { serverScript } from '@conclave/testkit';
import { afterAll, describe, test } from 'vitest';
import { cases } from './cases/index.ts';
import { Session } from './session.ts';
import type { Target } from './target.ts';
import { etcdTarget } from './targets/etcd.ts';
import { inProcessTarget } from './targets/in-process.ts';
import { serverProcessTarget } from './targets/server-process.ts';

/** Here the suite runs on our server, and on a real etcd where there is one. `npm run conformance` runs it on all targets. */
const targets: readonly (Target | undefined)[] = [
  inProcessTarget,
  existsSync(serverScript()) ? serverProcessTarget : undefined,
  etcdTarget('3.5'),
];

describe.each(targets.filter((target) => target !== undefined))('$name $version', (target) => {
  const session = new Session(target);
  afterAll(() => session[Symbol.asyncDispose]());

  for (const one of cases) {
    const why = session.skips(one);
    test.skipIf(why !== undefined)(why === undefined ? one.name : `${one.name} (${why})`, async () => {
      const verdict = await session.run(one);
      if (verdict.kind === 'failed') throw verdict.error;
    });
  }
});
