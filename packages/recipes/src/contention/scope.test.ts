import type { Namespace } from '@conclave/sdk';
import { scriptedClient } from '@conclave/testkit';
import { expect, test } from 'vitest';
import { lockKind } from './kind.ts';
import { Scope } from './scope.ts';

test('a call that fails after its scope ended is nobody else’s to catch', async () => {
  const { client } = await scriptedClient();
  const namespace: Namespace = client;
  const scope = new Scope(namespace, lockKind, AbortSignal.abort(), undefined);
  const unhandled: unknown[] = [];
  const onUnhandled = (reason: unknown): void => void unhandled.push(reason);
  process.on('unhandledRejection', onUnhandled);
  await expect(scope.race(Promise.reject(new Error('late')))).rejects.toMatchObject({ code: 'cancelled' });
  await new Promise((resolve) => setImmediate(resolve));
  process.off('unhandledRejection', onUnhandled);
  expect(unhandled).toEqual([]);
});
