// The calls of recipes pass the middleware of their client, in the asynchronous context of whoever called the recipe. So a span around a lock is the
// parent of all that the lock asks for.
import { AsyncLocalStorage } from 'node:async_hooks';
import { campaign, lock } from '@conclave/recipes';
import { connect } from '@conclave/sdk';
import { testTargets } from '@conclave/testkit';
import { expect, it } from 'vitest';

const targets = testTargets();

it.for(targets)('recipes are seen in the context of their caller, against $title', async ({ start, skip }, context) => {
  if (skip !== undefined) context.skip(skip);
  await using server = await start();
  const storage = new AsyncLocalStorage<string>();
  const seen: [string, string | undefined][] = [];
  await using client = await connect({
    endpoints: server.address,
    middleware: [
      ({ kind, method }, next) => {
        if (kind === 'unary') seen.push([method, storage.getStore()]);
        next();
      },
    ],
  });
  const held = await storage.run('locking', () => lock(client, 'jobs'));
  await storage.run('unlocking', () => held.release());
  const leadership = await storage.run('campaigning', () => campaign(client, 'scheduler', { value: 'me' }));
  await storage.run('resigning', () => leadership.resign());
  const contextsOf = (wanted: string): readonly (string | undefined)[] =>
    seen.filter(([method]) => method === wanted).map(([, store]) => store);
  expect(contextsOf('LeaseGrant')).toEqual(['locking', 'campaigning']);
  expect(contextsOf('LeaseRevoke')).toEqual(['unlocking', 'resigning']);
  expect(new Set(seen.map(([, store]) => store))).toEqual(new Set(['locking', 'unlocking', 'campaigning', 'resigning']));
});
