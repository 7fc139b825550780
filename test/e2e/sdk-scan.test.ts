// Scans against every server there is, through connections that break.
import { type Client, connect, type KeyValue, type Namespace, prefix, range, type ScanOptions, type Target } from '@conclave/sdk';
import { Random } from '@conclave/testing';
import { type RunningProcess, TcpProxy, testTargets } from '@conclave/testkit';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

const targets = testTargets();

const keys = Array.from({ length: 3_000 }, (_, at) => `all/${String(at).padStart(5, '0')}`);
const value = 'x'.repeat(200);

describe.each(targets)('against $title', ({ start, skip }) => {
  let server: RunningProcess;
  let direct: Client;

  beforeAll(async () => {
    if (skip !== undefined) return;
    server = await start();
    direct = await connect({ endpoints: server.address });
    for (let at = 0; at < keys.length; at += 100) await Promise.all(keys.slice(at, at + 100).map((key) => direct.put(key, value)));
  });

  afterAll(async () => {
    await direct?.close();
    await server?.[Symbol.asyncDispose]();
  });

  async function read(client: Namespace, target: Target, options?: ScanOptions): Promise<string[]> {
    const seen: string[] = [];
    for await (const kv of client.scan(target, options)) seen.push(kv.key);
    return seen;
  }

  describe.skipIf(skip !== undefined)('a scan', () => {
    test('reads everything in order, up and down, in pages of any size', async () => {
      expect(await read(direct, prefix('all/'))).toEqual(keys);
      expect(await read(direct, prefix('all/'), { pageSize: 7, keysOnly: true })).toEqual(keys);
      expect(await read(direct, prefix('all/'), { pageSize: 700, order: 'descend' })).toEqual([...keys].reverse());
      expect(await read(direct, prefix('all/'), { pageSize: 700, serializable: true })).toEqual(keys);
      expect(await read(direct, range('all/00100', 'all/00103'), { pageSize: 1 })).toEqual(keys.slice(100, 103));
      expect(await read(direct, keys[5] as string)).toEqual([keys[5]]);
      expect(await read(direct.namespace('all/'), prefix('0000'), { pageSize: 3 })).toEqual(
        keys.slice(0, 10).map((key) => key.slice('all/'.length)),
      );
      expect(await read(direct, prefix('none/'))).toEqual([]);
      expect(await read(direct, range('b', 'b'))).toEqual([]);
    });

    test('is of one revision, whatever is written meanwhile', async () => {
      const scan = direct.scan(prefix('all/'), { pageSize: 50 });
      const seen: KeyValue[] = [];
      for await (const kv of scan) {
        seen.push(kv);
        if (seen.length % 500 === 1) await Promise.all([direct.put('all/99999', 'later'), direct.put(keys.at(-1) as string, value)]);
      }
      expect(seen.map(({ key }) => key)).toEqual(keys);
      const last = seen.at(-1)?.modRevision ?? 0n;
      expect(last).toBeLessThanOrEqual(scan.revision ?? 0n);
      await direct.delete('all/99999');
      expect(await read(direct, 'all/99999', { revision: (await direct.get(keys.at(-1) as string))?.modRevision })).toHaveLength(1);
    });

    test.each([1, 2, 3])('goes on where it was when the connection is cut anywhere (%i)', async (seed) => {
      await using proxy = await TcpProxy.to(server.address);
      await using client = await connect({ endpoints: proxy.address });
      const random = new Random(seed);
      proxy.cutEvery(() => 30_000 + Math.floor(random.next() * 150_000));
      expect(await read(client, prefix('all/'), { pageSize: 100, deadlineMs: 20_000 })).toEqual(keys);
      expect(proxy.cuts).toBeGreaterThan(1);
    });

    test('ends with `compacted` when its revision is compacted away in the middle', async () => {
      const reading = (async () => {
        let seen = 0;
        for await (const _ of direct.scan(prefix('all/'), { pageSize: 10, order: 'descend' })) {
          if (++seen !== 10) continue;
          const { revision } = await direct.put('compaction', `${seen}`);
          await direct.compact(revision);
        }
      })();
      await expect(reading).rejects.toMatchObject({ code: 'compacted', outcome: 'not-applied' });
    });
  });
});
