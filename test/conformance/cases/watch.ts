import assert from 'node:assert/strict';
import { allKeys, type Init, type WatchCreateRequest, WatchCreateRequest_FilterType, wireErrors } from '@conclave/protocol';
import { type Case, physicalToo } from '../case.ts';
import { bytes, type Context, methods, op, WatchStream } from '../context.ts';

const { NOPUT, NODELETE } = WatchCreateRequest_FilterType;
const a = { key: bytes('a') };
const kib = (count: number): string => 'x'.repeat(count * 1024);
const zero = new Uint8Array([0]);

/** Begins a watch from now on, makes the writes, and compares every event up to the one on the key `a` that ends it. */
const live = (name: string, request: Init<WatchCreateRequest>, writes: readonly string[], expected: readonly string[]): Case => ({
  name: `watch: ${name}`,
  async run(t) {
    using watch = t.watch();
    await watch.create(request);
    await t.write(...writes);
    assert.deepEqual(await watch.events(expected.length), expected);
    assert.equal(watch.raw.pending, 0);
  },
});

/** The same history read from a revision on. */
const past = (
  name: string,
  request: (t: Context) => Init<WatchCreateRequest>,
  writes: readonly string[],
  expected: readonly string[],
): Case => ({
  name: `watch: ${name}`,
  async run(t) {
    await t.write(...writes);
    using watch = t.watch();
    await watch.create(request(t));
    assert.deepEqual(await watch.events(expected.length), expected);
    assert.equal(watch.raw.pending, 0);
  },
});

const from =
  (relative: number, more: Init<WatchCreateRequest> = {}) =>
  (t: Context): Init<WatchCreateRequest> => ({
    ...allKeys(),
    startRevision: t.base + relative,
    ...more,
  });

const ranges: readonly Case[] = [
  live('a single key', a, ['b=1', 'a=1', 'aa=1', '-a'], ['PUT a=1 c2 m2 v1', 'DELETE a= c0 m4 v0']),
  live(
    'an interval holds its start and not its end',
    { key: bytes('b'), rangeEnd: bytes('d') },
    ['a=1', 'b=1', 'd=1', 'c=1'],
    ['PUT b=1 c2 m2 v1', 'PUT c=1 c4 m4 v1'],
  ),
  live('from a key on', { key: bytes('b'), rangeEnd: zero }, ['a=1', 'b=1', 'z=1'], ['PUT b=1 c2 m2 v1', 'PUT z=1 c3 m3 v1']),
  live('every key', allKeys(), ['a=1', 'b=1'], ['PUT a=1 c1 m1 v1', 'PUT b=1 c2 m2 v1']),
  live(
    'an empty key with a range end of zero means every key',
    { rangeEnd: zero },
    ['a=1', 'b=1'],
    ['PUT a=1 c1 m1 v1', 'PUT b=1 c2 m2 v1'],
  ),
  live('a put event tells key, value, revisions, version', a, ['a=1', 'a=2'], ['PUT a=1 c1 m1 v1', 'PUT a=2 c1 m2 v2']),
  live(
    'a delete that finds nothing is no event',
    a,
    ['-a', 'a=1', '-a', '-a', 'a=2'],
    ['PUT a=1 c1 m1 v1', 'DELETE a= c0 m2 v0', 'PUT a=2 c3 m3 v1'],
  ),
  live(
    'prev_kv comes with every event but a creation',
    { ...a, prevKv: true },
    ['a=1', 'a=2', '-a', 'a=3'],
    ['PUT a=1 c1 m1 v1', 'PUT a=2 c1 m2 v2 <- a=1 c1 m1 v1', 'DELETE a= c0 m3 v0 <- a=2 c1 m2 v2', 'PUT a=3 c4 m4 v1'],
  ),
  live(
    'NOPUT leaves puts out',
    { ...a, filters: [NOPUT] },
    ['a=1', 'a=2', '-a', 'a=3', '-a'],
    ['DELETE a= c0 m3 v0', 'DELETE a= c0 m5 v0'],
  ),
  live('NODELETE leaves deletes out', { ...a, filters: [NODELETE] }, ['a=1', '-a', 'a=2'], ['PUT a=1 c1 m1 v1', 'PUT a=2 c3 m3 v1']),
  live(
    'NOPUT with prev_kv tells what was deleted',
    { ...a, filters: [NOPUT], prevKv: true },
    ['a=1', 'a=2', '-a'],
    ['DELETE a= c0 m3 v0 <- a=2 c1 m2 v2'],
  ),
  live('an unknown filter filters nothing', { ...a, filters: [7] }, ['a=1', '-a'], ['PUT a=1 c1 m1 v1', 'DELETE a= c0 m2 v0']),
  live(
    'fragment changes nothing for small events',
    { ...allKeys(), fragment: true },
    ['a=1', 'b=1'],
    ['PUT a=1 c1 m1 v1', 'PUT b=1 c2 m2 v1'],
  ),
  past(
    'history from a revision on, that revision included',
    from(2),
    ['a=1', 'b=1', '-a', 'a=2'],
    ['PUT b=1 c2 m2 v1', 'DELETE a= c0 m3 v0', 'PUT a=2 c4 m4 v1'],
  ),
  past('history of one key', (t) => ({ ...a, startRevision: t.base + 1 }), ['a=1', 'b=1', 'a=2'], ['PUT a=1 c1 m1 v1', 'PUT a=2 c1 m3 v2']),
  past(
    'history with prev_kv',
    from(1, { prevKv: true }),
    ['a=1', 'a=2', '-a'],
    ['PUT a=1 c1 m1 v1', 'PUT a=2 c1 m2 v2 <- a=1 c1 m1 v1', 'DELETE a= c0 m3 v0 <- a=2 c1 m2 v2'],
  ),
  past(
    'history with prev_kv from the middle knows what was before',
    from(2, { prevKv: true }),
    ['a=1', 'a=2'],
    ['PUT a=2 c1 m2 v2 <- a=1 c1 m1 v1'],
  ),
  past('history with NOPUT', from(1, { filters: [NOPUT] }), ['a=1', '-a', 'b=1', '-b'], ['DELETE a= c0 m2 v0', 'DELETE b= c0 m4 v0']),
  past('history with NODELETE', from(1, { filters: [NODELETE] }), ['a=1', '-a', 'b=1'], ['PUT a=1 c1 m1 v1', 'PUT b=1 c3 m3 v1']),
  past('history from the current revision', from(3), ['a=1', 'a=2', 'a=3'], ['PUT a=3 c1 m3 v3']),
];

const creation: readonly Case[] = [
  {
    name: 'watch: the created response tells id, revision and nothing else',
    async run(t) {
      await t.write('x=1');
      using watch = t.watch();
      const response = await watch.create(a);
      assert.deepEqual(
        { ...response, header: t.relative(response.header?.revision) },
        {
          header: 1,
          watchId: 0n,
          created: true,
          canceled: false,
          compactRevision: 0,
          cancelReason: '',
          fragment: false,
          events: [],
        },
      );
    },
  },
  {
    name: 'watch: the header of a created response carries cluster, member and term',
    async run(t) {
      using watch = t.watch();
      const { header } = await watch.create(a);
      assert.ok(header !== undefined && header.clusterId !== 0n && header.memberId !== 0n && header.raftTerm > 0);
    },
  },
  {
    name: 'watch: the header of an event carries cluster, member, term and the revision of the event',
    async run(t) {
      using watch = t.watch();
      await watch.create(a);
      await t.write('a=1', 'b=1', 'a=2');
      const first = await watch.next();
      const second = await watch.next();
      assert.deepEqual([t.relative(first.header?.revision), t.relative(second.header?.revision)], [1, 3]);
      assert.ok(first.header !== undefined && first.header.clusterId !== 0n && first.header.memberId !== 0n && first.header.raftTerm > 0);
    },
  },
  {
    name: 'watch: the header of history carries the revision of the store',
    async run(t) {
      await t.write('a=1', 'b=1', 'c=1');
      using watch = t.watch();
      await watch.create({ ...a, startRevision: t.base + 1 });
      const { header, events } = await watch.next();
      assert.deepEqual([t.relative(header?.revision), events.length], [3, 1]);
    },
  },
  {
    name: 'watch: ids are given from 0 up, per stream',
    async run(t) {
      using first = t.watch();
      using second = t.watch();
      assert.deepEqual([(await first.create(a)).watchId, (await first.create(a)).watchId, (await first.create(a)).watchId], [0n, 1n, 2n]);
      assert.equal((await second.create(a)).watchId, 0n);
    },
  },
  {
    name: 'watch: an id may be chosen, and given ids step around it',
    async run(t) {
      using watch = t.watch();
      assert.equal((await watch.create({ ...a, watchId: 1n })).watchId, 1n);
      assert.equal((await watch.create(a)).watchId, 0n);
      assert.equal((await watch.create(a)).watchId, 2n);
      assert.equal((await watch.create({ ...a, watchId: 9_000_000_000_000n })).watchId, 9_000_000_000_000n);
      assert.equal((await watch.create({ ...a, watchId: -7n })).watchId, -7n);
    },
  },
  {
    name: 'watch: an id in use is refused and the first watch goes on',
    async run(t) {
      using watch = t.watch();
      await watch.create({ ...a, watchId: 5n });
      const { header, ...refusal } = await watch.ask({ ...a, watchId: 5n });
      assert.deepEqual(refusal, {
        watchId: -1n,
        created: true,
        canceled: true,
        compactRevision: 0,
        cancelReason: wireErrors['watch-id-duplicate'].message,
        fragment: false,
        events: [],
      });
      assert.equal(t.relative(header?.revision), 0);
      await t.write('a=1');
      assert.equal((await watch.next()).watchId, 5n);
    },
  },
  {
    name: 'watch: the id of a canceled watch may be used again, and is not given again',
    async run(t) {
      using watch = t.watch();
      await watch.create({ ...a, watchId: 5n });
      await watch.create(a);
      watch.cancel(5n);
      watch.cancel(0n);
      await watch.next();
      await watch.next();
      assert.equal((await watch.create({ ...a, watchId: 5n })).canceled, false);
      assert.equal((await watch.create(a)).watchId, 1n);
    },
  },
  ...[
    { name: 'a range end equal to the key', request: { key: bytes('a'), rangeEnd: bytes('a') } },
    { name: 'a range end before the key', request: { key: bytes('b'), rangeEnd: bytes('a') } },
  ].map(
    ({ name, request }): Case => ({
      name: `watch: ${name} is refused as an empty range`,
      async run(t) {
        using watch = t.watch();
        const { header, ...refusal } = await watch.ask(request);
        assert.deepEqual(refusal, {
          watchId: -1n,
          created: true,
          canceled: true,
          compactRevision: 0,
          cancelReason: wireErrors['watch-range-empty'].message,
          fragment: false,
          events: [],
        });
        assert.equal(t.relative(header?.revision), 0);
        assert.equal((await watch.create(a)).watchId, 0n);
      },
    }),
  ),
  {
    name: 'watch: a single zero byte as range end is no empty range',
    async run(t) {
      using watch = t.watch();
      assert.equal((await watch.create({ key: bytes('b'), rangeEnd: zero })).canceled, false);
    },
  },
  {
    name: 'watch: an empty key alone watches the key of one zero byte',
    async run(t) {
      using watch = t.watch();
      await watch.create({});
      await t.write('a=1');
      await t.ok(methods.put, { key: zero, value: bytes('1') });
      assert.deepEqual(await watch.events(1), ['PUT 0x00=1 c2 m2 v1']);
    },
  },
  {
    name: 'watch: an empty key with a range end watches from the beginning',
    async run(t) {
      using watch = t.watch();
      await watch.create({ rangeEnd: bytes('b') });
      await t.write('b=1', 'a=1');
      assert.deepEqual(await watch.events(1), ['PUT a=1 c2 m2 v1']);
    },
  },
  {
    name: 'watch: a negative start revision is refused as compacted',
    since: '3.5.24',
    async run(t) {
      using watch = t.watch();
      const { header, ...refusal } = await watch.ask({ ...a, startRevision: -1 });
      assert.deepEqual(refusal, {
        watchId: -1n,
        created: true,
        canceled: true,
        compactRevision: 0,
        cancelReason: wireErrors.compacted.message,
        fragment: false,
        events: [],
      });
      assert.equal(t.relative(header?.revision), 0);
    },
  },
  {
    name: 'watch: a negative start revision is told before an empty range',
    since: '3.5.24',
    async run(t) {
      using watch = t.watch();
      const { cancelReason } = await watch.ask({ key: bytes('b'), rangeEnd: bytes('a'), startRevision: -1 });
      assert.equal(cancelReason, wireErrors.compacted.message);
    },
  },
  {
    name: 'watch: a request of no kind is ignored and the stream goes on',
    async run(t) {
      using watch = t.watch();
      watch.raw.send({});
      watch.raw.sendBytes(new Uint8Array([0x7a, 0x00]));
      assert.equal((await watch.create(a)).watchId, 0n);
    },
  },
  {
    name: 'watch: several streams on one connection are independent',
    async run(t) {
      using first = t.watch();
      using second = t.watch();
      await first.create(a);
      await second.create({ key: bytes('b') });
      await t.write('a=1', 'b=1');
      assert.deepEqual(await first.events(1), ['PUT a=1 c1 m1 v1']);
      assert.deepEqual(await second.events(1), ['PUT b=1 c2 m2 v1']);
      first.raw.cancel();
      await t.write('b=2');
      assert.deepEqual(await second.events(1), ['PUT b=2 c2 m3 v2']);
    },
  },
  {
    name: 'watch: after a half-close the watches go on',
    async run(t) {
      using watch = t.watch();
      await watch.create(a);
      watch.raw.halfClose();
      await t.write('a=1', 'a=2');
      assert.deepEqual(await watch.events(2), ['PUT a=1 c1 m1 v1', 'PUT a=2 c1 m2 v2']);
    },
  },
];

const starts: readonly Case[] = [
  {
    name: 'watch: start revision 0 begins after the created response',
    async run(t) {
      await t.write('a=1');
      using watch = t.watch();
      await watch.create(a);
      await t.write('a=2');
      assert.deepEqual(await watch.events(1), ['PUT a=2 c1 m2 v2']);
    },
  },
  {
    name: 'watch: a start in the past goes over into the present without gap or repetition',
    async run(t) {
      await t.write('a=1', 'a=2');
      using watch = t.watch();
      const writes = (async () => {
        for (let at = 3; at <= 40; at++) await t.put('a', `${at}`);
      })();
      await watch.create({ ...a, startRevision: t.base + 1 });
      const events = await watch.events(40);
      await writes;
      assert.deepEqual(
        events,
        Array.from({ length: 40 }, (_none, at) => `PUT a=${at + 1} c1 m${at + 1} v${at + 1}`),
      );
    },
  },
  {
    name: 'watch: a start in the future delivers nothing older',
    async run(t) {
      using watch = t.watch();
      await watch.create({ ...allKeys(), startRevision: t.base + 3 });
      await t.write('a=1', 'b=1', 'c=1', 'd=1');
      assert.deepEqual(await watch.events(2), ['PUT c=1 c3 m3 v1', 'PUT d=1 c4 m4 v1']);
    },
  },
  {
    name: 'watch: a start just after the current revision delivers the next write',
    async run(t) {
      await t.write('a=1');
      using watch = t.watch();
      await watch.create({ ...a, startRevision: t.base + 2 });
      await t.write('a=2');
      assert.deepEqual(await watch.events(1), ['PUT a=2 c1 m2 v2']);
    },
  },
  {
    name: 'watch: a start below the compacted revision is created and then canceled with that revision',
    async run(t) {
      await t.write('a=1', 'a=2', 'a=3');
      await t.ok(methods.compact, { revision: t.base + 2 });
      using watch = t.watch();
      const created = await watch.create({ ...a, startRevision: t.base + 1 });
      assert.equal(created.canceled, false);
      const { header, ...canceled } = await watch.next();
      assert.deepEqual(canceled, {
        watchId: created.watchId,
        created: false,
        canceled: true,
        compactRevision: t.base + 2,
        cancelReason: '',
        fragment: false,
        events: [],
      });
      assert.equal(header?.revision, 0);
      assert.ok(header.clusterId !== 0n && header.memberId !== 0n && header.raftTerm > 0);
    },
  },
  ...physicalToo({
    name: 'watch: a start at the compacted revision delivers the event of that revision',
    async run(t, physical) {
      await t.write('a=1', 'a=2', 'a=3');
      await t.ok(methods.compact, { revision: t.base + 2, physical });
      using watch = t.watch();
      await watch.create({ ...a, startRevision: t.base + 2 });
      assert.deepEqual(await watch.events(2), ['PUT a=2 c1 m2 v2', 'PUT a=3 c1 m3 v3']);
    },
  }),
  ...physicalToo({
    name: 'watch: a start at a compacted tombstone delivers the delete',
    since: '3.5.17',
    async run(t, physical) {
      await t.write('a=1', '-a', 'b=1');
      await t.ok(methods.compact, { revision: t.base + 2, physical });
      using watch = t.watch();
      await watch.create({ ...allKeys(), startRevision: t.base + 2 });
      assert.deepEqual(await watch.events(2), ['DELETE a= c0 m2 v0', 'PUT b=1 c3 m3 v1']);
    },
  }),
  ...physicalToo({
    name: 'watch: prev_kv that is compacted away is left out',
    async run(t, physical) {
      await t.write('a=1', 'a=2', 'a=3');
      await t.ok(methods.compact, { revision: t.base + 2, physical });
      using watch = t.watch();
      await watch.create({ ...a, startRevision: t.base + 2, prevKv: true });
      assert.deepEqual(await watch.events(2), ['PUT a=2 c1 m2 v2', 'PUT a=3 c1 m3 v3 <- a=2 c1 m2 v2']);
    },
  }),
  ...physicalToo({
    name: 'watch: a compaction does not disturb a watch that is up to date',
    async run(t, physical) {
      using watch = t.watch();
      await watch.create(a);
      await t.write('a=1', 'a=2');
      await watch.events(2);
      await t.ok(methods.compact, { revision: t.base + 2, physical });
      await t.write('a=3');
      assert.deepEqual(await watch.events(1), ['PUT a=3 c1 m3 v3']);
    },
  }),
  ...physicalToo({
    name: 'watch: a compaction does not disturb a watch with a start in the future',
    async run(t, physical) {
      using watch = t.watch();
      await watch.create({ ...a, startRevision: t.base + 4 });
      await t.write('a=1', 'a=2', 'a=3');
      await t.ok(methods.compact, { revision: t.base + 3, physical });
      await t.write('a=4');
      assert.deepEqual(await watch.events(1), ['PUT a=4 c1 m4 v4']);
    },
  }),
  {
    name: 'watch: three thousand revisions of history arrive whole and in order',
    async run(t) {
      const total = 3000;
      for (let at = 1; at <= total; at += 100) await Promise.all(Array.from({ length: 100 }, () => t.put('a', 'v')));
      using watch = t.watch();
      await watch.create({ ...a, startRevision: t.base + 1 });
      const events = await watch.events(total);
      assert.deepEqual([events[0], events[total - 1]], ['PUT a=v c1 m1 v1', `PUT a=v c1 m${total} v${total}`]);
      assert.ok(events.every((event, at) => event === `PUT a=v c1 m${at + 1} v${at + 1}`));
    },
  },
];

const batches: readonly Case[] = [
  {
    name: 'watch: all events of one txn come in one response, in the order of its operations',
    async run(t) {
      await t.write('z=1');
      using watch = t.watch();
      await watch.create(allKeys());
      await t.txn([], [op.put('c', '1'), op.del('z'), op.put('a', '1'), op.txn([], [op.put('b', '1')])]);
      const { events, header } = await watch.next();
      assert.deepEqual(
        events.map((event) => t.shownEvent(event)),
        ['PUT c=1 c2 m2 v1', 'DELETE z= c0 m2 v0', 'PUT a=1 c2 m2 v1', 'PUT b=1 c2 m2 v1'],
      );
      assert.equal(t.relative(header?.revision), 2);
    },
  },
  {
    name: 'watch: a delete of a range is one response with its keys in order',
    async run(t) {
      await t.write('c=1', 'a=1', 'b=1');
      using watch = t.watch();
      await watch.create({ ...allKeys(), prevKv: true });
      await t.ok(methods.deleteRange, allKeys());
      const { events } = await watch.next();
      assert.deepEqual(
        events.map((event) => t.shownEvent(event)),
        ['DELETE a= c0 m4 v0 <- a=1 c2 m2 v1', 'DELETE b= c0 m4 v0 <- b=1 c3 m3 v1', 'DELETE c= c0 m4 v0 <- c=1 c1 m1 v1'],
      );
    },
  },
  {
    name: 'watch: a watch on part of a txn gets its part',
    async run(t) {
      using watch = t.watch();
      await watch.create({ key: bytes('a'), rangeEnd: bytes('c') });
      await t.txn([], [op.put('a', '1'), op.put('x', '1'), op.put('b', '1')]);
      assert.equal((await watch.next()).events.length, 2);
    },
  },
  {
    name: 'watch: a txn whose events the filter leaves out is not sent',
    async run(t) {
      using watch = t.watch();
      await watch.create({ ...allKeys(), filters: [NOPUT] });
      await t.txn([], [op.put('a', '1'), op.put('b', '1')]);
      await t.txn([], [op.put('c', '1'), op.del('a')]);
      const { events } = await watch.next();
      assert.deepEqual(
        events.map((event) => t.shownEvent(event)),
        ['DELETE a= c0 m2 v0'],
      );
    },
  },
  {
    name: 'watch: prev_kv of a key written and deleted in one txn tells the state before the txn',
    async run(t) {
      await t.write('a=1');
      using watch = t.watch();
      await watch.create({ ...allKeys(), prevKv: true });
      await t.txn([], [op.put('a', '2'), { requestDeleteRange: allKeys() }]);
      const { events } = await watch.next();
      assert.deepEqual(
        events.map((event) => t.shownEvent(event)),
        ['PUT a=2 c1 m2 v2 <- a=1 c1 m1 v1', 'DELETE a= c0 m2 v0 <- a=1 c1 m1 v1'],
      );
    },
  },
  {
    name: 'watch: a key deleted and put again in one txn is two events',
    async run(t) {
      await t.write('k=1');
      using watch = t.watch();
      await watch.create({ ...allKeys(), prevKv: true });
      await t.txn([], [op.del('b', { rangeEnd: zero }), op.put('k', '2')]);
      const { events } = await watch.next();
      assert.deepEqual(
        events.map((event) => t.shownEvent(event)),
        ['DELETE k= c0 m2 v0 <- k=1 c1 m1 v1', 'PUT k=2 c2 m2 v1'],
      );
    },
  },
  {
    name: 'watch: a read-only txn and a txn that writes nothing are no event',
    async run(t) {
      using watch = t.watch();
      await watch.create(allKeys());
      await t.txn([], [op.get('a'), op.del('a')]);
      await t.write('a=1');
      assert.deepEqual(await watch.events(1), ['PUT a=1 c1 m1 v1']);
    },
  },
  {
    name: 'watch: every watch of a stream gets its own copy',
    async run(t) {
      using watch = t.watch();
      await watch.create(a);
      await watch.create({ ...allKeys(), prevKv: true });
      await watch.create({ key: bytes('b') });
      await t.write('a=1');
      const ids = [(await watch.next()).watchId, (await watch.next()).watchId].map(Number).sort((a, b) => a - b);
      assert.deepEqual(ids, [0, 1]);
    },
  },
  {
    name: 'watch: a put tells its lease',
    async run(t) {
      const lease = await t.grant();
      using watch = t.watch();
      await watch.create({ ...a, prevKv: true });
      await t.put('a', '1', lease);
      await t.put('a', '2');
      assert.deepEqual(await watch.events(2), [`PUT a=1 c1 m1 v1 l${lease}`, `PUT a=2 c1 m2 v2 <- a=1 c1 m1 v1 l${lease}`]);
    },
  },
  {
    name: 'watch: events of a thousand concurrent writes arrive in revision order, each once',
    async run(t) {
      using watch = t.watch();
      await watch.create(allKeys());
      const writes = Promise.all(Array.from({ length: 1000 }, (_none, at) => t.put(`k${at % 7}`, `${at}`)));
      const revisions: number[] = [];
      while (revisions.length < 1000)
        for (const event of (await watch.next()).events) revisions.push((event.kv?.modRevision ?? 0) - t.base);
      await writes;
      assert.deepEqual(
        revisions,
        Array.from({ length: 1000 }, (_none, at) => at + 1),
      );
    },
  },
];

const slow: readonly Case[] = [
  {
    name: 'watch: a reader that stops for a while gets every event in order, and a compaction meanwhile makes no gap',
    async run(t) {
      using watch = t.watch();
      await watch.create(allKeys());
      watch.raw.pause();
      const total = 1200;
      const value = kib(8);
      for (let at = 0; at < total; at += 100) await Promise.all(Array.from({ length: 100 }, () => t.put('a', value)));
      await t.ok(methods.compact, { revision: t.base + total });
      await t.put('a', 'last');
      watch.raw.resume();
      let next = t.base + 1;
      while (next <= t.base + total + 1) {
        const { events, canceled, compactRevision } = await watch.next();
        if (canceled) {
          assert.equal(compactRevision, t.base + total);
          return;
        }
        for (const { kv } of events) assert.equal(kv?.modRevision, next++);
      }
    },
  },
  {
    name: 'watch: a reader that stopped does not hold up the other streams',
    async run(t) {
      using stopped = t.watch();
      await stopped.create(allKeys());
      stopped.raw.pause();
      const other = t.another();
      using watch = new WatchStream(t, other.stream(methods.watch));
      await watch.create(allKeys());
      const value = kib(64);
      for (let at = 1; at <= 100; at++) await t.put('a', value);
      let seen = 0;
      while (seen < 100) seen += (await watch.next()).events.length;
    },
  },
];

const cancels: readonly Case[] = [
  {
    name: 'watch: a cancel request is answered without a reason',
    async run(t) {
      using watch = t.watch();
      await watch.create(a);
      await t.write('b=1');
      watch.cancel(0n);
      const { header, ...canceled } = await watch.next();
      assert.deepEqual(canceled, {
        watchId: 0n,
        created: false,
        canceled: true,
        compactRevision: 0,
        cancelReason: '',
        fragment: false,
        events: [],
      });
      assert.equal(t.relative(header?.revision), 1);
    },
  },
  {
    name: 'watch: after a cancel nothing more comes for that watch',
    async run(t) {
      using watch = t.watch();
      await watch.create(a);
      await watch.create({ ...a, watchId: 9n });
      watch.cancel(0n);
      assert.equal((await watch.next()).canceled, true);
      await t.write('a=1', 'a=2');
      assert.deepEqual([(await watch.next()).watchId, (await watch.next()).watchId], [9n, 9n]);
    },
  },
  {
    name: 'watch: canceling an unknown id is not answered',
    async run(t) {
      using watch = t.watch();
      await watch.create(a);
      watch.cancel(77n);
      assert.equal((await watch.create({ ...a, watchId: 5n })).watchId, 5n);
    },
  },
  {
    name: 'watch: canceling twice is answered once',
    async run(t) {
      using watch = t.watch();
      await watch.create(a);
      watch.cancel(0n);
      watch.cancel(0n);
      assert.equal((await watch.next()).canceled, true);
      assert.equal((await watch.ask({ ...a, watchId: 5n })).created, true);
    },
  },
  {
    name: 'watch: canceling one watch leaves the others of the stream alone',
    async run(t) {
      using watch = t.watch();
      await watch.create(a);
      await watch.create(a);
      watch.cancel(0n);
      await watch.next();
      await t.write('a=1');
      assert.equal((await watch.next()).watchId, 1n);
    },
  },
];

const isProgress = (response: { events: readonly unknown[]; created: boolean; canceled: boolean }): boolean =>
  response.events.length === 0 && !response.created && !response.canceled;

/** Reads responses until one is a progress notification. */
async function progressOf(watch: WatchStream): Promise<{ watchId: bigint; revision: number | undefined }> {
  for (;;) {
    const response = await watch.next();
    if (isProgress(response)) return { watchId: response.watchId, revision: response.header?.revision };
  }
}

const progress: readonly Case[] = [
  {
    name: 'watch: a progress request on a synced stream is answered with id -1 and the current revision',
    async run(t) {
      using watch = t.watch();
      await watch.create(a);
      await t.write('b=1', 'b=2');
      watch.progress();
      const response = await watch.next();
      assert.deepEqual([response.watchId, t.relative(response.header?.revision), isProgress(response)], [-1n, 2, true]);
      assert.equal(response.fragment, false);
    },
  },
  {
    name: 'watch: a progress request never overtakes events',
    since: '3.5.8',
    async run(t) {
      using watch = t.watch();
      await watch.create(a);
      for (let round = 1; round <= 50; round++) {
        await t.put('a', `${round}`);
        watch.progress();
        const event = await watch.next();
        assert.equal(event.events.length, 1);
        const answer = await watch.next();
        assert.deepEqual([answer.watchId, t.relative(answer.header?.revision)], [-1n, round]);
      }
    },
  },
  {
    name: 'watch: a progress request on a stream without watches is not answered',
    since: '3.5.8',
    async run(t) {
      using watch = t.watch();
      watch.progress();
      assert.equal((await watch.create(a)).watchId, 0n);
      watch.progress();
      assert.equal((await watch.next()).watchId, -1n);
    },
  },
  {
    name: 'watch: a progress request is not answered while a watch has its start in the future',
    since: '3.5.14',
    async run(t) {
      using watch = t.watch();
      await watch.create(a);
      await watch.create({ ...a, startRevision: t.base + 2 });
      watch.progress();
      await t.write('b=1', 'a=1');
      assert.deepEqual([(await watch.next()).events.length, (await watch.next()).events.length], [1, 1]);
      watch.progress();
      assert.deepEqual(await progressOf(watch), { watchId: -1n, revision: t.base + 2 });
    },
  },
  {
    name: 'watch: a progress request with several watches is answered once',
    async run(t) {
      using watch = t.watch();
      await watch.create(a);
      await watch.create({ key: bytes('b') });
      watch.progress();
      assert.equal((await watch.next()).watchId, -1n);
      await t.write('a=1');
      assert.equal((await watch.next()).events.length, 1);
    },
  },
  {
    name: 'watch: progress_notify tells each watch that asked for it the current revision',
    settings: { progressNotifyIntervalMs: 200 },
    async run(t) {
      using watch = t.watch();
      await watch.create(a);
      await watch.create({ ...a, progressNotify: true });
      await watch.create({ ...a, progressNotify: true, watchId: 7n });
      await t.write('b=1', 'b=2');
      const told = new Map<bigint, number>();
      while (told.size < 2 || ![...told.values()].every((revision) => revision === 2)) {
        const response = await watch.next();
        assert.ok(isProgress(response) && response.watchId !== 0n && response.watchId !== -1n, 'progress of a watch that asked for it');
        told.set(response.watchId, t.relative(response.header?.revision));
      }
      assert.deepEqual(
        [...told.keys()].sort((a, b) => Number(a - b)),
        [1n, 7n],
      );
    },
  },
  {
    name: 'watch: progress_notify goes on after events',
    settings: { progressNotifyIntervalMs: 200 },
    async run(t) {
      using watch = t.watch();
      await watch.create({ ...a, progressNotify: true });
      await t.write('a=1');
      const first = await watch.next();
      if (first.events.length === 0) assert.equal((await watch.next()).events.length, 1);
      assert.deepEqual(await progressOf(watch), { watchId: 0n, revision: t.base + 1 });
      assert.deepEqual(await progressOf(watch), { watchId: 0n, revision: t.base + 1 });
    },
  },
];

const fragments: readonly Case[] = [
  {
    name: 'watch: with fragment, history beyond the limit comes whole and in order, and a marked part is followed by its rest',
    async run(t) {
      for (let at = 0; at < 6; at++) await t.put(`k${at}`, kib(700));
      using watch = t.watch();
      await watch.create({ ...allKeys(), startRevision: t.base + 1, fragment: true });
      const seen: string[] = [];
      let isLast = false;
      while (seen.length < 6) {
        const { events, fragment } = await watch.next();
        assert.ok(events.length < 4, 'a part stays about as small as a request may be');
        seen.push(...events.map(({ kv }) => Buffer.from(kv?.key ?? []).toString()));
        isLast = !fragment;
      }
      assert.deepEqual(seen, ['k0', 'k1', 'k2', 'k3', 'k4', 'k5']);
      assert.ok(isLast);
    },
  },
  {
    name: 'watch: without fragment all events of one revision come in one response, however large',
    async run(t) {
      for (let at = 0; at < 4; at++) await t.put(`k${at}`, kib(700));
      using watch = t.watch();
      await watch.create({ ...allKeys(), prevKv: true });
      await t.ok(methods.deleteRange, allKeys());
      const { events, fragment } = await watch.next();
      assert.deepEqual([events.length, fragment], [4, false]);
    },
  },
  {
    name: 'watch: with fragment every event of one revision counts, prev_kv too',
    async run(t) {
      for (let at = 0; at < 3; at++) await t.put(`k${at}`, kib(900));
      using watch = t.watch();
      await watch.create({ ...allKeys(), fragment: true, prevKv: true });
      await t.ok(methods.deleteRange, allKeys());
      const seen: string[] = [];
      const marks: boolean[] = [];
      while (seen.length < 3) {
        const { events, fragment, header } = await watch.next();
        assert.equal(t.relative(header?.revision), 4);
        marks.push(fragment);
        seen.push(...events.map(({ kv }) => Buffer.from(kv?.key ?? []).toString()));
      }
      assert.deepEqual(seen, ['k0', 'k1', 'k2']);
      assert.deepEqual(
        marks.slice(0, -1).every((mark) => mark),
        true,
      );
      assert.equal(marks.at(-1), false);
    },
  },
];

export const watchCases: readonly Case[] = [...ranges, ...creation, ...starts, ...batches, ...slow, ...cancels, ...progress, ...fragments];
