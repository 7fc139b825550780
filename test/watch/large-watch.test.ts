import { Watch } from '@conclave/protocol';
import { type Client, connect, prefix, put, type WatchEvent } from '@conclave/sdk';
import { RawStream, type RunningProcess, testTargets, within } from '@conclave/testkit';
import { systemRuntime } from '@conclave/wire';
import { grpcTransport } from '@conclave/wire/grpc-client';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

describe.each(testTargets())('against $title', ({ start, skip, name }) => {
  let server: RunningProcess;
  let client: Client;

  beforeAll(async () => {
    if (skip !== undefined) return;
    server = await start();
    client = await connect({ endpoints: server.address, deadlineMs: 30_000 });
  });
  afterAll(async () => {
    await client?.close();
    await server?.[Symbol.asyncDispose]();
  });

  test.skipIf(skip !== undefined)(
    'a replay of 50,000 events, 14 MB, arrives whole',
    async () => {
      const count = 50_000;
      const perTxn = 100;
      const value = 'x'.repeat(250);
      const { revision: before } = await client.put('before', '');
      for (let n = 0; n < count; n += perTxn * 8) {
        const txns = Array.from({ length: Math.min(8, (count - n) / perTxn) }, () =>
          client
            .txn()
            .then(...Array.from({ length: perTxn }, (_, at) => put(`replay/${at}`, value)))
            .commit(),
        );
        await Promise.all(txns);
      }
      let bytes = 0;
      const perRevision = new Map<bigint, number>();
      let told = 0;
      const replay = async (): Promise<void> => {
        for await (const { revision, kv } of client.watch(prefix('replay/'), { startRevision: before + 1n })) {
          bytes += kv.keyBytes.length + kv.valueBytes.length;
          perRevision.set(revision, (perRevision.get(revision) ?? 0) + 1);
          if (++told === count) break;
        }
      };
      await within('the replay', replay(), 60_000);
      expect(bytes).toBeGreaterThan(12_000_000);
      expect([...perRevision.values()].every((events) => events === perTxn)).toBe(true);
      expect([...perRevision.keys()]).toEqual(Array.from({ length: count / perTxn }, (_, at) => before + 1n + BigInt(at)));
    },
    120_000,
  );

  test.skipIf(skip !== undefined)('a revision too large for one message comes in fragments, and is told as one', async () => {
    // As large as a request may be, and each event carries the value before, too.
    const perTxn = 10;
    const change = (letter: string) =>
      client
        .txn()
        .then(...Array.from({ length: perTxn }, (_, at) => put(`big/${at}`, letter.repeat(140_000))))
        .commit();
    await change('a');
    const { revision } = await change('b');

    const connection = grpcTransport({ runtime: systemRuntime() })(server.address);
    using raw = new RawStream(connection, Watch.methods.watch, {});
    const range = { key: Buffer.from('big/'), rangeEnd: Buffer.from('big0') };
    raw.send({ createRequest: { ...range, startRevision: Number(revision), prevKv: true, fragment: true } });
    expect((await raw.next()).created).toBe(true);
    const first = await raw.next();
    expect(first.fragment).toBe(true);
    expect(first.events.length).toBeLessThan(perTxn);
    connection.close();

    const events: WatchEvent[] = [];
    for await (const event of client.watch(prefix('big/'), { startRevision: revision, prevKv: true })) {
      if (events.push(event) === perTxn) break;
    }
    expect(events.map((event) => [event.revision, event.key, event.value[0], event.prevKv?.value[0]])).toEqual(
      Array.from({ length: perTxn }, (_, at) => [revision, `big/${at}`, 'b', 'a']),
    );
  });

  test.skipIf(skip !== undefined)('it says how far it is when asked, or that it cannot be believed', async () => {
    await using watch = client.watch(prefix('quiet/'), { startRevision: 1n, progressNotify: true });
    const seen: string[] = [];
    watch.subscribe(({ type, revision }) => seen.push(`${type} ${revision}`));
    const { revision: first } = await client.put('quiet/a', '1');
    const { revision } = await client.put('elsewhere', '1');
    const asked = watch.requestProgress();
    // Of the 3.4 line those from 3.4.25 on can be believed.
    if (name === 'etcd 3.4') {
      await expect(asked).rejects.toMatchObject({ code: 'unimplemented' });
      return;
    }
    expect(await asked).toBeGreaterThanOrEqual(revision);
    expect(seen).toEqual([`put ${first}`, `progress ${revision}`]);
    const later = await client.put('elsewhere', '2');
    expect(await watch.requestProgress()).toBeGreaterThanOrEqual(later.revision);
  });
});
