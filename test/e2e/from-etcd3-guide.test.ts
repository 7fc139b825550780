// Both columns of the guide, and the bridge between them, run as they stand against a real etcd, and print what their comments promise.
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { etcdBinary, launchEtcd } from '@conclave/testkit';
import { describe, expect, test } from 'vitest';

const page = readFileSync(join('docs', 'guides', 'from-etcd3.md'), 'utf8');
// Below the checkout, so that the packages are found as in a program of its own.
const scratch = join('.cache', 'guides');
const isThere = etcdBinary('3.5', 'etcd') !== undefined;

/** The blocks of one language as one program: the first makes the client, each of the others has names of its own. */
function programOf(language: 'js' | 'ts' | 'ts bridge'): { readonly code: string; readonly promised: readonly string[] } {
  const blocks = [...page.matchAll(/^```(.*)\n([\s\S]*?)^```$/gm)].filter((match) => match[1] === language).map((match) => match[2] ?? '');
  const imports = new Map<string, Set<string>>();
  const bodies = blocks.map((block) =>
    block.replaceAll(/^import \{ (.*) \} from '(.*)';\n/gm, (_, names: string, from: string) => {
      imports.set(from, new Set([...(imports.get(from) ?? []), ...names.split(', ')]));
      return '';
    }),
  );
  const [first = '', ...others] = bodies;
  const heads = [...imports].map(([from, names]) => `import { ${[...names].join(', ')} } from '${from}';`);
  // npm etcd3 now and then leaves a timer of a revoked lease behind, which keeps the process alive. Ours has to end by itself.
  const end = { js: 'client.close(); process.exit();', ts: 'await client.close();', 'ts bridge': 'await client.close(); process.exit();' }[
    language
  ];
  const code = [...heads, first, ...others.map((body) => `{\n${body}}`), end].join('\n');
  return { code, promised: [...code.matchAll(/console\.log\(.*\/\/ (.*)$/gm)].map((match) => match[1] ?? '') };
}

async function run(file: string): Promise<{ readonly status: number | null; readonly stdout: string; readonly stderr: string }> {
  const child = spawn(process.execPath, ['--conditions=@conclave/source', '--import', 'tsx', file], { timeout: 25_000 });
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', (data: Buffer) => {
    stdout += data.toString();
  });
  child.stderr.on('data', (data: Buffer) => {
    stderr += data.toString();
  });
  const status = await new Promise<number | null>((resolve) => child.on('close', resolve));
  return { status, stdout, stderr };
}

describe(`the guide for users of npm etcd3${isThere ? '' : ' (skipped: ETCD_BIN_DIR does not hold etcd 3.5)'}`, () => {
  test.skipIf(!isThere).each([
    { column: 'npm etcd3', language: 'js', extension: 'mjs', least: 20 },
    { column: 'Conclave', language: 'ts', extension: 'ts', least: 20 },
    { column: 'the bridge', language: 'ts bridge', extension: 'ts', least: 4 },
  ] as const)('$column', async ({ language, extension, least }) => {
    await using etcd = await launchEtcd({ version: '3.5' });
    const { code, promised } = programOf(language);
    expect(promised.length).toBeGreaterThanOrEqual(least);
    mkdirSync(scratch, { recursive: true });
    const dir = mkdtempSync(join(scratch, 'run-'));
    try {
      const file = join(dir, `program.${extension}`);
      writeFileSync(file, code.replaceAll('127.0.0.1:2379', etcd.address));
      const { status, stdout, stderr } = await run(file);
      expect(stderr).toBe('');
      expect(stdout.trim().split('\n')).toEqual(promised);
      expect(status).toBe(0);
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
  });

  test('both columns have every section', () => {
    const sections = page.split(/^## /m).slice(1, -1);
    for (const section of sections) expect([...section.matchAll(/^```(js|ts)$/gm)].map((match) => match[1])).toEqual(['js', 'ts']);
  });
});
