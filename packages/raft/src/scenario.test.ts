/**
 * Runs the scripts of ../testdata: a block is one or more commands, a line of dashes, and what they printed. With REWRITE=1 the output is
 * written into the scripts instead of compared; read the difference before it is committed.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Scenario } from '../test/scenario.ts';

const folder = join(import.meta.dirname, '../testdata');

interface Block {
  /** Comments and commands. */
  readonly commands: readonly string[];
  readonly output: readonly string[];
}

function parse(script: string): Block[] {
  return script
    .trim()
    .split(/\n\s*\n/)
    .map((block) => {
      const lines = block.split('\n');
      const bar = lines.indexOf('----');
      return bar < 0 ? { commands: lines, output: [] } : { commands: lines.slice(0, bar), output: lines.slice(bar + 1) };
    });
}

function play(blocks: readonly Block[]): Block[] {
  const scenario = new Scenario();
  return blocks.map(({ commands }) => {
    const output = commands.filter((line) => line !== '' && !line.startsWith('#')).flatMap((line) => scenario.run(line));
    return { commands, output: output.length > 0 ? output : ['ok'] };
  });
}

function print(blocks: readonly Block[]): string {
  const isComment = ({ commands }: Block): boolean => commands.every((line) => line.startsWith('#'));
  return `${blocks.map((block) => [...block.commands, ...(isComment(block) ? [] : ['----', ...block.output])].join('\n')).join('\n\n')}\n`;
}

describe('scenario', () => {
  const scripts = readdirSync(folder).filter((name) => name.endsWith('.txt'));

  it.each(scripts)('%s', (name) => {
    const path = join(folder, name);
    const script = readFileSync(path, 'utf8');
    const played = print(play(parse(script)));
    if (process.env['REWRITE'] === '1') writeFileSync(path, played);
    else expect(played).toBe(script);
  });

  it('scripts are found', () => {
    expect(scripts.length).toBeGreaterThanOrEqual(40);
  });
});
