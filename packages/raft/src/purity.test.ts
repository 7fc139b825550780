import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import ts from 'typescript';
import { describe, expect, it } from 'vitest';

/** Type checks a line of code as if it stood in this package. */
function errorsOf(code: string): readonly string[] {
  const root = join(import.meta.dirname, '..');
  const config = ts.readConfigFile(join(root, 'tsconfig.json'), ts.sys.readFile);
  const { options } = ts.parseJsonConfigFileContent(config.config, ts.sys, root);
  const file = join(root, 'src/probe.ts');
  const host = ts.createCompilerHost(options);
  const { getSourceFile, fileExists } = host;
  host.getSourceFile = (name, version) => (name === file ? ts.createSourceFile(name, code, version) : getSourceFile(name, version));
  host.fileExists = (name) => name === file || fileExists(name);
  const program = ts.createProgram([file], { ...options, noEmit: true, composite: false, incremental: false }, host);
  return program
    .getSemanticDiagnostics(program.getSourceFile(file))
    .map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, ' '));
}

describe('the core is pure', () => {
  it('by its compiler options: timers, the process, the console and Node’s modules do not exist in it', () => {
    const probes = [
      'setTimeout(() => {}, 1)',
      'process.exit(1)',
      'console.log(1)',
      'performance.now()',
      'Buffer.from([])',
      'queueMicrotask(() => {})',
    ];
    const errors = errorsOf(
      `${probes.map((probe) => `${probe};`).join('\n')}\nimport 'node:fs';\nexport const fine: number = Math.max(1, 2);`,
    );
    expect(errors).toHaveLength(probes.length + 1);
    for (const error of errors) expect(error).toMatch(/Cannot find/);
  });

  it('by its text: what the language itself offers of clocks and chance is not used, nothing is imported from elsewhere', () => {
    const sources = readdirSync(import.meta.dirname).filter((name) => name.endsWith('.ts') && !name.endsWith('.test.ts'));
    expect(sources.length).toBeGreaterThan(5);
    for (const name of sources) {
      const text = readFileSync(join(import.meta.dirname, name), 'utf8');
      expect([name, text.match(/\bDate\b|Math\.random|\basync\b|\bawait\b|\bPromise\b/g)]).toEqual([name, null]);
      for (const [, from] of text.matchAll(/from '([^']+)'/g)) expect(from).toMatch(/^\.\//);
    }
  });
});
