import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';

const names = ['connect', 'get', 'isConclaveError', 'key', 'prefix', 'put', 'type StandardSchemaV1'];

it('the programs of the guide to reads and transactions run as they stand', () => {
  const page = readFileSync(join('docs', 'guides', 'reads-and-transactions.md'), 'utf8');
  const programs = [...page.matchAll(/```ts\n([\s\S]*?)```/g)].map((match) => `{\n${match[1] ?? ''}}\n`);
  const program = [
    `import { ${names.join(', ')} } from '@conclave/sdk';`,
    "import { startServer } from '@conclave/server';",
    'const server = await startServer();',
    "const client = await connect({ endpoints: 'memory', transport: server.transport });",
    ...programs,
    'await client.close();',
    'await server.close();',
  ].join('\n');
  const scratch = join('.cache', 'guides');
  mkdirSync(scratch, { recursive: true });
  const dir = mkdtempSync(join(scratch, 'run-'));
  try {
    const file = join(dir, 'guide.ts');
    writeFileSync(file, program);
    const flags = ['--conditions=@conclave/source', '--import', 'tsx'];
    const result = spawnSync(process.execPath, [...flags, file], { encoding: 'utf8', timeout: 25_000 });
    expect(result.stderr).toBe('');
    // What each comment of the page promises.
    const promised = [...page.matchAll(/console\.log\(.*\/\/ (.*)$/gm)].map((match) => match[1]);
    expect(result.stdout.trim().split('\n')).toEqual(promised);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
});
