import assert from 'node:assert/strict';
import { allKeys, type Init, type RangeRequest, type RangeResponse, type WireErrorKey, wireErrors } from '@conclave/protocol';
import type { Case } from '../case.ts';
import { bytes, type Context, methods, status } from '../context.ts';

interface Streamed {
  readonly chunks: readonly RangeResponse[];
  readonly end: string;
}

async function streamed(t: Context, request: Init<RangeRequest>): Promise<Streamed> {
  using stream = t.client.stream(methods.rangeStream);
  stream.send(request);
  stream.halfClose();
  const end = await stream.ended;
  const chunks: RangeResponse[] = [];
  while (stream.pending > 0) {
    const { rangeResponse } = await stream.next();
    if (rangeResponse !== undefined) chunks.push(rangeResponse);
  }
  return { chunks, end: status(end) };
}

/** The chunks put together again: what Range would have answered. */
function joined(t: Context, { chunks, end }: Streamed): unknown {
  assert.equal(end, '0 ');
  const last = chunks.at(-1);
  return { kvs: chunks.flatMap(({ kvs }) => kvs.map((kv) => t.shownKv(kv))), count: last?.count, more: last?.more, header: last?.header };
}

/** The stream must carry what Range answers. */
const sameAsRange = (name: string, request: (t: Context) => Init<RangeRequest>): Case => ({
  name: `range stream: ${name}`,
  since: '3.7',
  async run(t) {
    for (let at = 0; at < 40; at++) await t.put(`k${`${at}`.padStart(2, '0')}`, `${at}`);
    await t.write('k05=new', '-k06');
    const { header, ...shown } = await t
      .ok(methods.range, request(t))
      .then((response) => ({ ...t.shownRange(response), header: response.header }));
    assert.deepEqual(joined(t, await streamed(t, request(t))), { ...shown, header });
  },
});

const refused = (name: string, request: (t: Context) => Init<RangeRequest>, error: WireErrorKey): Case => ({
  name: `range stream: ${name}`,
  since: '3.7',
  async run(t) {
    await t.write('a=1');
    const { chunks, end } = await streamed(t, request(t));
    assert.deepEqual([end, chunks], [status(wireErrors[error]), []]);
  },
});

export const rangeStreamCases: readonly Case[] = [
  {
    name: 'range stream: a server that does not have it says Unimplemented',
    until: '3.6',
    async run(t) {
      assert.match((await streamed(t, { key: bytes('a') })).end, /^12 unknown method RangeStream/);
    },
  },
  sameAsRange('carries what Range answers', () => allKeys()),
  sameAsRange('of one key', () => ({ key: bytes('k05') })),
  sameAsRange('of a missing key', () => ({ key: bytes('nothing') })),
  sameAsRange('of an interval', () => ({ key: bytes('k1'), rangeEnd: bytes('k2') })),
  sameAsRange('with a limit', () => ({ ...allKeys(), limit: 25 })),
  sameAsRange('with a limit below the first chunk', () => ({ ...allKeys(), limit: 3 })),
  sameAsRange('with a limit that is not reached', () => ({ ...allKeys(), limit: 100 })),
  sameAsRange('of an old revision', (t) => ({ ...allKeys(), revision: t.base + 20 })),
  sameAsRange('serializable', () => ({ ...allKeys(), serializable: true })),
  sameAsRange('with keys_only', () => ({ ...allKeys(), keysOnly: true })),
  sameAsRange('with count_only', () => ({ ...allKeys(), countOnly: true })),
  sameAsRange('with ascending keys asked for', () => ({ ...allKeys(), sortOrder: 1 })),
  {
    name: 'range stream: the first chunk holds ten keys, and header, count and more come with the last only',
    since: '3.7',
    async run(t) {
      for (let at = 0; at < 40; at++) await t.put(`k${`${at}`.padStart(2, '0')}`, `${at}`);
      const { chunks, end } = await streamed(t, { ...allKeys(), limit: 35 });
      assert.equal(end, '0 ');
      assert.ok(chunks.length > 1);
      assert.equal(chunks[0]?.kvs.length, 10);
      for (const { header, count, more } of chunks.slice(0, -1)) assert.deepEqual([header, count, more], [undefined, 0, false]);
      const last = chunks.at(-1);
      assert.deepEqual([t.relative(last?.header?.revision), last?.count, last?.more], [40, 40, true]);
    },
  },
  {
    name: 'range stream: count_only is one message',
    since: '3.7',
    async run(t) {
      await t.write('a=1', 'b=1');
      const { chunks } = await streamed(t, { ...allKeys(), countOnly: true });
      assert.deepEqual(
        chunks.map(({ count, kvs }) => [count, kvs.length]),
        [[2, 0]],
      );
    },
  },
  {
    name: 'range stream: large values come in chunks of about the request limit',
    since: '3.7',
    async run(t) {
      const value = new Uint8Array(300 * 1024);
      for (let at = 0; at < 30; at++) await t.ok(methods.put, { key: bytes(`k${`${at}`.padStart(2, '0')}`), value });
      const { chunks, end } = await streamed(t, allKeys());
      assert.equal(end, '0 ');
      assert.equal(
        chunks.reduce((sum, { kvs }) => sum + kvs.length, 0),
        30,
      );
      const rest = chunks.slice(1);
      assert.ok(
        rest.length >= 3 && rest.every(({ kvs }) => kvs.length <= 12),
        `${rest.map(({ kvs }) => kvs.length).join(' ')} keys a chunk`,
      );
    },
  },
  refused('an empty key is refused', () => ({}), 'key-empty'),
  refused('descending keys are refused', () => ({ ...allKeys(), sortOrder: 2 }), 'range-stream-sort'),
  refused('another sort target is refused', () => ({ ...allKeys(), sortTarget: 1, sortOrder: 1 }), 'range-stream-sort'),
  refused('a revision filter is refused', () => ({ ...allKeys(), minModRevision: 1 }), 'range-stream-filters'),
  refused('an unknown sort order is refused as invalid', () => ({ ...allKeys(), sortOrder: 9 }), 'invalid-sort-option'),
  refused('a future revision is refused', (t) => ({ ...allKeys(), revision: t.base + 9 }), 'future-revision'),
  {
    name: 'range stream: a compacted revision is refused',
    since: '3.7',
    async run(t) {
      await t.write('a=1', 'a=2');
      await t.ok(methods.compact, { revision: t.base + 2 });
      assert.equal((await streamed(t, { ...allKeys(), revision: t.base + 1 })).end, status(wireErrors.compacted));
    },
  },
];
