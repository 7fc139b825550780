// Key spaces with values of one type, against every server there is.
import { type Client, connect, type EntryEvent, json, key, type Namespace, put, type StandardSchemaV1, text } from '@conclave/sdk';
import { type RunningProcess, testTargets, within } from '@conclave/testkit';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';

interface User {
  readonly name: string;
  readonly age: number;
}

/** A schema as validators make them: takes a user with or without an age, gives one with it. */
const userSchema: StandardSchemaV1<{ readonly name: string; readonly age?: number }, User> = {
  '~standard': {
    version: 1,
    vendor: 'test',
    validate: (value) => {
      const { name, age = 0 } = value as Partial<User>;
      return typeof name === 'string' ? { value: { name, age } } : { issues: [{ message: 'a name is missing', path: ['name'] }] };
    },
  },
};

describe.each(testTargets())('against $title', ({ start, skip }) => {
  let server: RunningProcess;
  let root: Client;
  let client: Namespace;
  let space = 0;

  beforeAll(async () => {
    if (skip !== undefined) return;
    server = await start();
    root = await connect({ endpoints: server.address });
  });

  beforeEach(() => {
    client = root?.namespace(`${++space}/`);
  });

  afterAll(async () => {
    await root?.close();
    await server?.[Symbol.asyncDispose]();
  });

  describe.skipIf(skip !== undefined)('a space', () => {
    test('writes and reads values of its type, below its prefix', async () => {
      const users = client.space('users/', userSchema);
      const { revision } = await users.put('7', { name: 'Ada' });
      expect((await client.get('users/7'))?.value).toBe('{"name":"Ada"}');
      expect(await users.get('7')).toMatchObject({ key: '7', value: { name: 'Ada', age: 0 }, kv: { modRevision: revision } });
      await users.put('8', { name: 'Bob', age: 50 });
      await client.put('other', 'x');
      const { entries, count, more } = await users.list();
      expect(entries.map(({ key, value }) => [key, value.age])).toEqual([
        ['7', 0],
        ['8', 50],
      ]);
      expect([count, more]).toEqual([2, false]);
      const scan = users.scan(undefined, { pageSize: 1 });
      const seen: string[] = [];
      for await (const entry of scan) seen.push(entry.value.name);
      expect(seen).toEqual(['Ada', 'Bob']);
      expect(scan.revision).toBeGreaterThan(revision);
      expect(await users.delete('7')).toMatchObject({ deleted: 1 });
      expect(await users.get('7')).toBeUndefined();
    });

    test('neither writes nor passes on what is not of its type', async () => {
      const users = client.space('users/', userSchema);
      const issues = [{ message: 'a name is missing', path: ['name'] }];
      await expect(users.put('7', { age: 1 } as never)).rejects.toMatchObject({
        code: 'invalid-value',
        outcome: 'not-applied',
        details: { key: '7', issues },
      });
      expect(await client.get('users/7')).toBeUndefined();
      const { revision } = await client.put('users/7', '{}');
      const failure = { code: 'invalid-value', details: { key: '7', issues, revision } };
      await expect(users.get('7')).rejects.toMatchObject(failure);
      await expect(users.list()).rejects.toMatchObject(failure);
      await expect(users.scan()[Symbol.asyncIterator]().next()).rejects.toMatchObject(failure);
      await client.put('users/7', 'no JSON');
      await expect(users.get('7')).rejects.toMatchObject({ code: 'invalid-value', details: { key: '7' } });
    });

    test('is watched with its types, and a watch ends at what is not of its type and can go on behind it', async () => {
      const users = client.space('users/', userSchema);
      const { revision } = await users.put('7', { name: 'Ada' });
      await users.delete('7');
      const bad = await client.put('users/8', '{}');
      await users.put('9', { name: 'Bob' });
      const seen: unknown[] = [];
      const watching = async (startRevision: bigint, count: number): Promise<void> => {
        for await (const change of users.watch(undefined, { startRevision })) {
          seen.push([change.type, change.key, change.type === 'put' ? change.value.name : undefined]);
          if (seen.length === count) return;
        }
      };
      await expect(within('the end', watching(revision, 3))).rejects.toMatchObject({
        code: 'invalid-value',
        details: { key: '8', revision: bad.revision },
      });
      await within('the rest', watching(bad.revision + 1n, 3));
      expect(seen).toEqual([
        ['put', '7', 'Ada'],
        ['delete', '7', undefined],
        ['put', '9', 'Bob'],
      ]);
    });

    test('tells observers what is asked for beside the changes', async () => {
      const words = client.space('words/', text());
      const seen: (EntryEvent<string> | { readonly type: 'created' })[] = [];
      const two = new Promise<void>((resolve, reject) => {
        words.watch('a', { notifyCreated: true }).subscribe({
          next: (emitted) => {
            if (seen.push(emitted) === 2) resolve();
            if (emitted.type === 'created') words.put('a', 'hello').catch(reject);
          },
          error: reject,
        });
      });
      await within('both', two);
      expect(seen.map(({ type }) => type)).toEqual(['created', 'put']);
    });

    test('composes with transactions', async () => {
      const users = client.space('users/', json(userSchema));
      const stored = client.namespace('users/');
      const result = await stored
        .txn()
        .if(key('7').missing())
        .then(put('7', await users.encode('7', { name: 'Ada' })))
        .commit();
      expect(result.succeeded).toBe(true);
      const kv = await stored.get('7');
      if (kv === undefined) return expect.unreachable();
      expect((await users.decode(kv)).value.name).toBe('Ada');
    });
  });
});
