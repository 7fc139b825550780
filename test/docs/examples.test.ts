// The examples of the docstrings: everything public has one, they compile against the real types, and they run.
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { format } from 'node:util';
import { isConclaveError } from '@conclave/sdk';
import { startServer } from '@conclave/server';
import { within } from '@conclave/testkit';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { compilerErrors, writeProject } from './example-project.ts';
import { givenNames, Stage } from './given.ts';
import { doorsOf, publicSymbols } from './public-symbols.ts';

/** What the server of these tests refuses, and with which code. One that it does no more has no place here. */
const refused: Readonly<Record<string, string>> = {
  'sdk/ClusterClient.promote': 'learner-not-ready',
  // Not there yet.
  'sdk/AuthClient.enable': 'unimplemented',
  'sdk/AuthClient.disable': 'unimplemented',
  'sdk/MaintenanceClient.validateDowngrade': 'unimplemented',
  'sdk/MaintenanceClient.enableDowngrade': 'unimplemented',
  'sdk/MaintenanceClient.cancelDowngrade': 'unimplemented',
  'sdk/MemberMaintenance.defragment': 'unimplemented',
  'sdk/MemberMaintenance.hash': 'unimplemented',
  'sdk/MemberMaintenance.snapshot': 'unimplemented',
  'sdk/RoleClient.add': 'unimplemented',
  'sdk/RoleClient.delete': 'unimplemented',
  'sdk/RoleClient.get': 'unimplemented',
  'sdk/RoleClient.grantPermission': 'unimplemented',
  'sdk/RoleClient.revokePermission': 'unimplemented',
  'sdk/UserClient.add': 'unimplemented',
  'sdk/UserClient.delete': 'unimplemented',
  'sdk/UserClient.get': 'unimplemented',
  'sdk/UserClient.changePassword': 'unimplemented',
  'sdk/UserClient.grantRole': 'unimplemented',
  'sdk/UserClient.revokeRole': 'unimplemented',
};

/** How long an example may go on before it is ended, as its reader would. One in virtual time ends by itself. */
const patienceMs = 400;
const virtualPatienceMs = 10_000;

const server = await startServer({ listen: '127.0.0.1:0' });
const symbols = ['sdk', 'recipes', 'testing'].flatMap(doorsOf).flatMap(publicSymbols);
const dir = join('.cache', 'examples');
const examples = writeProject(symbols, { dir, givenNames, address: server.endpoints[0] ?? '' });

/** What the example that runs has printed. */
let printed: string[] = [];

beforeAll(() => {
  vi.spyOn(console, 'log').mockImplementation((...values) => void printed.push(format(...values).trim()));
  vi.spyOn(console, 'error').mockImplementation(() => undefined);
});

afterAll(async () => {
  vi.restoreAllMocks();
  await server.close();
});

test('everything public is shown', () => {
  // Whoever sees next to nothing misses nothing.
  expect(symbols.length).toBeGreaterThan(250);
  const missing = symbols
    .filter(({ isShown }) => !isShown)
    .map(({ name, place }) => `${place}: ${name} needs an @example, or a part in that of its class`);
  expect(missing.join('\n'), 'test/docs/public-symbols.ts says what wants one').toBe('');
});

test('no two of them are the same', () => {
  const seen = new Map<string, string>();
  for (const { name, examples } of symbols) {
    for (const code of examples) {
      const other = seen.get(code);
      // What implements an interface shows the same.
      if (other !== undefined) expect(other.split('.').at(-1), `${name} and ${other} have the same example`).toBe(name.split('.').at(-1));
      seen.set(code, name);
    }
  }
});

test('they compile', () => {
  expect(compilerErrors(dir, examples), 'a name that is not exported, imported or declared must be among those of test/docs/given.ts').toBe(
    '',
  );
});

describe('they run', () => {
  test.for(examples)('$name', async ({ name, file, place, givens, promises }) => {
    printed = [];
    await using stage = new Stage();
    const module = (await import(resolve(file))) as { example(given: unknown): Promise<void> };
    let isEnded = false;
    const running = module.example(await stage.give(givens)).catch((error: unknown) => {
      if (isEnded && isConclaveError(error)) return undefined;
      if (isConclaveError(error, refused[name] ?? '')) return error.code;
      throw error;
    });
    const ms = givens.includes('c') ? virtualPatienceMs : patienceMs;
    await Promise.race([running, new Promise((wake) => setTimeout(wake, ms))]);
    isEnded = true;
    await stage.end();
    expect(await within(`the example at ${place}`, running, 5_000)).toBe(refused[name]);
    for (const promise of promises) expect(printed, 'what its comments promise is printed').toContainEqual(expect.stringMatching(promise));
  });

  test('they leave nothing in the checkout', () => {
    expect(existsSync('backup.part')).toBe(false);
  });

  test('what is refused is there', () => {
    const names = examples.map(({ name }) => name);
    expect(Object.keys(refused).filter((name) => !names.includes(name))).toEqual([]);
  });
});
