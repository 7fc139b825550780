import { type Init, type KeyValue, KV, RangeRequest, RangeResponse, RangeStreamResponse, StatusCode } from '@conclave/protocol';
import { allKeys, isConclaveError, prefix, type Scan, type ScanOptions } from '@conclave/sdk';
import { type ScriptedCall, type ScriptedClient, type ScriptedStream, scriptedClient } from '@conclave/testkit';
import { beforeEach, describe, expect, test } from 'vitest';

const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString('latin1');
const kvs = (names: readonly string[]): Init<KeyValue>[] => names.map((name) => ({ key: Buffer.from(name), modRevision: 3 }));

/** A store of one revision that answers page by page; what becomes of streams is the test's. */
const names = Array.from({ length: 10 }, (_, at) => `k${at}`);

let scripted: ScriptedClient;

beforeEach(async () => {
  scripted = await scriptedClient();
  scripted.script.onCall = answer;
});

function answer(call: ScriptedCall): void {
  const request = RangeRequest.decode(call.request);
  const end = text(request.rangeEnd);
  const found = names.filter((name) => name >= text(request.key) && (end === '\0' || name < end));
  if (request.sortOrder === 2) found.reverse();
  const page = found.slice(0, request.limit);
  call.reply(RangeResponse.encode({ header: { revision: 7 }, kvs: kvs(page), more: page.length < found.length, count: found.length }));
}

function requests(): RangeRequest[] {
  return scripted.script.calls.map(({ request }) => RangeRequest.decode(request));
}

async function read(scan: Scan): Promise<string[]> {
  const seen: string[] = [];
  for await (const kv of scan) seen.push(kv.key);
  return seen;
}

const scanned = (options?: ScanOptions): Promise<string[]> => scripted.runtime.run(read(scripted.client.scan(allKeys(), options)));

function chunk(stream: ScriptedStream, part: readonly string[], isLast = false): void {
  const rangeResponse = isLast ? { header: { revision: 9 }, kvs: kvs(part), count: part.length } : { kvs: kvs(part) };
  stream.send(RangeStreamResponse.encode({ rangeResponse }));
  if (isLast) stream.end(0);
}

describe('without range streams', () => {
  beforeEach(() => {
    scripted.script.onStream = (stream) => stream.end(StatusCode.UNIMPLEMENTED, { message: 'unknown method RangeStream' });
  });

  test('a scan reads page by page at the revision of the first, and asks for a stream once', async () => {
    expect(await scanned({ pageSize: 4 })).toEqual(names);
    expect(requests().map(({ key, revision, limit }) => [text(key), revision, limit])).toEqual([
      ['\0', 0, 4],
      ['k3\0', 7, 4],
      ['k7\0', 7, 4],
    ]);
    expect(await scanned({ pageSize: 4 })).toEqual(names);
    expect(scripted.script.streams).toHaveLength(1);
  });

  test('a scan can go down, and keeps what it was told', async () => {
    expect(await scanned({ pageSize: 6, order: 'descend', revision: 5n, keysOnly: true })).toEqual([...names].reverse());
    expect(requests().map(({ rangeEnd, revision, keysOnly }) => [text(rangeEnd), revision, keysOnly])).toEqual([
      ['\0', 5, true],
      ['k4', 5, true],
    ]);
    expect(scripted.script.streams).toHaveLength(0);
  });

  test('a loop that is left reads no further', async () => {
    const scan = scripted.client.scan(allKeys(), { pageSize: 2 });
    await scripted.runtime.run(
      (async () => {
        for await (const kv of scan) if (kv.key === 'k1') break;
      })(),
    );
    expect(requests()).toHaveLength(1);
    expect(scan.revision).toBe(7n);
  });

  test('a serializable page from a member that is behind is asked for again through the leader', async () => {
    scripted.script.onCall = (call) => {
      const { revision, serializable } = RangeRequest.decode(call.request);
      if (revision === 7 && serializable)
        call.end(StatusCode.OUT_OF_RANGE, { message: 'etcdserver: mvcc: required revision is a future revision' });
      else answer(call);
    };
    expect(await scanned({ pageSize: 9, serializable: true })).toEqual(names);
    expect(requests().map(({ serializable }) => serializable)).toEqual([true, true, false]);
  });

  test('a compaction below it ends it', async () => {
    scripted.script.onCall = (call) => {
      if (RangeRequest.decode(call.request).revision === 0) answer(call);
      else call.end(StatusCode.OUT_OF_RANGE, { message: 'etcdserver: mvcc: required revision has been compacted' });
    };
    await expect(scanned({ pageSize: 4 })).rejects.toMatchObject({ code: 'compacted', outcome: 'not-applied' });
  });

  test('an abort ends it, also between two pages', async () => {
    const controller = new AbortController();
    const scan = scripted.client.scan(allKeys(), { pageSize: 4, signal: controller.signal });
    const reading = (async () => {
      for await (const kv of scan) if (kv.key === 'k3') controller.abort();
    })();
    await expect(scripted.runtime.run(reading)).rejects.toMatchObject({ code: 'cancelled' });
  });
});

describe('with range streams', () => {
  test('the first page is plain, and the rest comes as one stream at its revision', async () => {
    scripted.script.onStream = (stream) => {
      chunk(stream, names.slice(4, 7));
      chunk(stream, names.slice(7), true);
    };
    expect(await scanned({ pageSize: 4 })).toEqual(names);
    expect(requests()).toHaveLength(1);
    const { stream } = scripted.script;
    expect(stream.path).toBe(KV.methods.rangeStream.path);
    expect(stream.isHalfClosed).toBe(true);
    const request = RangeRequest.decode(stream.written[0] as Uint8Array);
    expect([text(request.key), text(request.rangeEnd), request.revision, request.limit]).toEqual(['k3\0', '\0', 7, 0]);
  });

  test('a stream that is cut is gone on with behind its last key', async () => {
    let streams = 0;
    scripted.script.onStream = (stream) => {
      if (++streams === 1) {
        chunk(stream, ['k2', 'k3']);
        stream.end(StatusCode.UNAVAILABLE, { message: 'connection lost' });
      } else chunk(stream, names.slice(6), true);
    };
    expect(await scanned({ pageSize: 2 })).toEqual(names);
    expect(requests().map(({ key, revision }) => [text(key), revision])).toEqual([
      ['\0', 0],
      ['k3\0', 7],
    ]);
    expect(streams).toBe(2);
  });

  test('a stream that stalls is given up after the time of a page', async () => {
    scripted.script.onStream = (stream) => {
      if (scripted.script.streams.length === 1) chunk(stream, ['k4']);
    };
    expect(await scanned({ pageSize: 4, deadlineMs: 300 })).toEqual(names);
    expect(scripted.script.streams[0]?.isCancelled).toBe(true);
    expect(scripted.runtime.pendingTimers).toBeLessThan(3);
  });

  test('chunks come one ahead of a slow loop, and leaving it cancels the stream', async () => {
    let sent = 0;
    scripted.script.onStream = (stream) => {
      const more = (): void => {
        if (stream.isEnded) return;
        if (!stream.isPaused) chunk(stream, [`k4.${String(sent++).padStart(6, '0')}`]);
        scripted.runtime.timer(1, more);
      };
      more();
    };
    const scan = scripted.client.scan(prefix('k'), { pageSize: 4 });
    const loop = scan[Symbol.asyncIterator]();
    await scripted.runtime.run(
      (async () => {
        for (let n = 0; n < 6; n++) await loop.next();
      })(),
    );
    await scripted.runtime.advance(1_000);
    expect(sent).toBeLessThan(6);
    await scripted.runtime.run(loop.return(undefined));
    expect(scripted.script.stream.isCancelled).toBe(true);
  });

  test('an abort ends the wait for a chunk', async () => {
    const controller = new AbortController();
    const { runtime, client } = scripted;
    runtime.timer(50, () => controller.abort('enough'));
    const reading = read(client.scan(allKeys(), { pageSize: 4, signal: controller.signal }));
    await expect(runtime.run(reading)).rejects.toMatchObject({ code: 'cancelled', cause: 'enough' });
    expect(runtime.monotonic()).toBe(50);
  });
});

test('a scan is read once, and is told so', async () => {
  const scan = scripted.client.scan('k0');
  expect(scan.revision).toBeUndefined();
  await scripted.runtime.run(read(scan));
  expect(() => scan[Symbol.asyncIterator]()).toThrow(expect.objectContaining({ code: 'invalid-argument' }));
});

test.each([{ pageSize: 0 }, { pageSize: 1.5 }, { order: 'up' as never }, { revision: -1 }])('%o is refused', (options) => {
  try {
    scripted.client.scan(allKeys(), options);
    expect.unreachable();
  } catch (error) {
    expect(isConclaveError(error, 'invalid-argument')).toBe(true);
  }
});
