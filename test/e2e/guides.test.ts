// The programs of these guides run as they stand, each page from top to bottom.
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { testTargets } from '@conclave/testkit';
import { describe, expect, it } from 'vitest';

// Below the checkout, so that the packages are found as in a program of its own.
const scratch = join('.cache', 'guides');

const ours = 'conclave-server';
const etcd = 'etcd 3.5';

describe.each([
  {
    page: 'watches',
    servers: [ours, etcd],
    says: [
      'put config/color green',
      'delete config/color',
      'in stock milk bread',
      'price 50 left out',
      'too slow, go on after true',
      'told all of it true 2',
    ],
  },
  {
    page: 'views',
    servers: [ours, etcd],
    says: ['10.0.0.8:8080@eu-2 1 2', 'already there services/cart/1', 'started 1', 'bills/orders/1 two apples'],
  },
  {
    page: 'sessions',
    servers: [ours, etcd],
    says: ['back: busy\n', 'elected with the token true', 'lease number 1', 'true\n', '1 2n\ndropped 1\n0\n'],
  },
  {
    page: 'observability',
    servers: [ours, etcd],
    says: [
      'refused: this service only reads',
      "name: 'checkout'",
      "name: 'etcdserverpb.KV/Txn'",
      'method="Put",code="ok"} 1',
      '"msg":"an endpoint is ready"',
    ],
  },
  // Ours takes no snapshots yet.
  { page: 'upkeep', servers: [etcd], says: ['default 3.5.', 'true'] },
  // Brings its own.
  { page: 'testing', servers: [ours], says: ['# fail 0', '# pass 9'] },
])('$page', ({ page, servers, says }) => {
  const targets = testTargets().filter(({ name }) => servers.includes(name));

  it.for(targets)('against $title', async ({ start, skip }, context) => {
    if (skip !== undefined) context.skip(skip);
    mkdirSync(scratch, { recursive: true });
    const dir = mkdtempSync(join(scratch, 'run-'));
    await using server = await start();
    try {
      const program = programOf(page).replaceAll('127.0.0.1:2379', server.address).replaceAll('backup.', join(dir, 'backup.'));
      const file = join(dir, 'guide.ts');
      writeFileSync(file, program);
      const result = spawnSync(process.execPath, ['--conditions=@conclave/source', '--import', 'tsx', file], {
        encoding: 'utf8',
        timeout: 25_000,
      });
      expect(result.stderr).toBe('');
      expect(result.status).toBe(0);
      for (const line of says) expect(result.stdout).toContain(line);
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
  });
});

function programOf(page: string): string {
  const text = readFileSync(join('docs', 'guides', `${page}.md`), 'utf8');
  return [...text.matchAll(/```ts\n([\s\S]*?)```/g)].map((match) => match[1] ?? '').join('\n');
}
