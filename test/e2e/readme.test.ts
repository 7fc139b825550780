import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { freePort } from '@conclave/testkit';
import { expect, it } from 'vitest';

/** The programs in a page of Markdown. */
function programs(file: string): string[] {
  return [...readFileSync(file, 'utf8').matchAll(/```ts\n([\s\S]*?)```/g)].map((match) => match[1] ?? '');
}

// Below the checkout, so that the packages are found as in a program of its own.
const scratch = join('.cache', 'readme');

it('the programs of the README run as they stand', async () => {
  const [example = '', inMemory = ''] = programs('README.md');
  mkdirSync(scratch, { recursive: true });
  const dir = mkdtempSync(join(scratch, 'run-'));
  try {
    const address = `127.0.0.1:${await freePort()}`;
    const said = run(dir, 'example.ts', example.replaceAll('127.0.0.1:2379', address).replaceAll('./data', join(dir, 'data')));
    expect(said).toContain('hello');
    expect(said).toMatch(/token \d+n/);
    const imports = "import { connect } from '@conclave/sdk';\nimport { startServer } from '@conclave/server';\n";
    run(dir, 'in-memory.ts', `${imports}${inMemory}\nawait client.put('a', 'b');\nawait client.close();\nawait server.close();\n`);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
});

function run(dir: string, name: string, program: string): string {
  const file = join(dir, name);
  writeFileSync(file, program);
  const result = spawnSync(process.execPath, ['--conditions=@conclave/source', '--import', 'tsx', file], {
    encoding: 'utf8',
    timeout: 25_000,
  });
  expect(result.stderr).toBe('');
  expect(result.status).toBe(0);
  return result.stdout;
}
