import { fork } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { launchServer, serverScript } from '@conclave/testkit';
import { expect, test } from 'vitest';

const isBuilt = existsSync(serverScript());

test.skipIf(!isBuilt)(`each of 10,000 watches takes at most 2 kB${isBuilt ? '' : ' (skipped: it is not built)'}`, async () => {
  await using server = await launchServer();
  const program = fileURLToPath(new URL('./watch-heap.mjs', import.meta.url));
  const child = fork(program, [server.address, '10000'], { execArgv: ['--expose-gc'] });
  try {
    const [{ bytes }] = await once(child, 'message');
    expect(bytes).toBeLessThanOrEqual(2_048);
  } finally {
    child.kill();
  }
});
