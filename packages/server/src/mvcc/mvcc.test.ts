import { KeyValue, RangeRequest, RangeResponse, ResponseHeader } from '@conclave/protocol';
import type { Runtime } from '@conclave/wire';
import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import { type Row, type ScanOptions, type Table, tables } from '../storage/backend/backend.ts';
import { BufferedStore } from '../storage/backend/buffered-store.ts';
import { MemoryBackend } from '../storage/backend/memory.ts';
import { Mvcc } from './mvcc.ts';
import type { RangeResult } from './range-read.ts';
import { encodeRangeResponse, encodeRangeResponseSliced } from './range-response.ts';
import type { Slicer } from './slicer.ts';

const runtime: Runtime = {
  monotonic: () => 0,
  boot: () => 0,
  wall: () => 0,
  timer: () => ({ cancel() {} }),
  endOfTurn() {},
  random: () => 0,
  log: { debug() {}, info() {}, warn() {}, error() {} },
};

const fatal = (cause: Error): never => {
  throw cause;
};

const bytes = (characters: string): Uint8Array => new Uint8Array(Buffer.from(characters, 'latin1'));
const text = (contents: Uint8Array): string => Buffer.from(contents).toString('latin1');
const compacted = 'etcdserver: mvcc: required revision has been compacted';
const future = 'etcdserver: mvcc: required revision is a future revision';

/** Takes literally that bytes are valid until the caller returns to the event loop: then it spoils what it gave out. */
class SpoilingBackend extends MemoryBackend {
  #given: Uint8Array[] = [];

  override get(table: Table, key: Uint8Array): Uint8Array | undefined {
    const value = super.get(table, key);
    return value && this.#give(value);
  }

  override *scan(table: Table, start: Uint8Array, end: Uint8Array | undefined, options?: ScanOptions): Generator<Row, undefined> {
    for (const row of super.scan(table, start, end, options)) yield { key: this.#give(row.key), value: this.#give(row.value) };
  }

  spoil(): void {
    for (const given of this.#given.splice(0)) given.fill(0xaa);
  }

  /** As Buffers, whose `slice` does not copy: whoever keeps bytes has to know. */
  #give(bytes: Uint8Array): Buffer {
    const copy = Buffer.from(bytes);
    this.#given.push(copy);
    return copy;
  }
}

const patient: Slicer = { isSpent: () => false, nextSlice: () => Promise.resolve() };

/** Spent at every question; between the slices something happens. */
function interrupted(between: () => void | Promise<void>): Slicer {
  return {
    isSpent: () => true,
    nextSlice: async () => {
      backend.spoil();
      await between();
    },
  };
}

let backend: SpoilingBackend;
let store: BufferedStore;
let mvcc: Mvcc;
let index: number;

function open(): void {
  store = new BufferedStore({ backend, runtime, fatal });
  mvcc = new Mvcc(store);
  index = store.durableIndex;
}

beforeEach(() => {
  backend = new SpoilingBackend();
  open();
});

function put(key: string, value = '', lease = 0n): number {
  const txn = mvcc.begin();
  txn.put(bytes(key), bytes(value), lease);
  txn.end();
  store.applied(++index);
  return mvcc.revision;
}

function remove(key: string, end = ''): number {
  const txn = mvcc.begin();
  txn.deleteRange(bytes(key), bytes(end));
  txn.end();
  store.applied(++index);
  return mvcc.revision;
}

function compact(revision: number): void {
  mvcc.compact(revision);
  store.applied(++index);
}

function compactFully(): void {
  while (!mvcc.compactStep(3));
  store.applied(index);
}

const all = { key: bytes('\0'), rangeEnd: bytes('\0') };
const rangeOf = (init: object): RangeRequest => RangeRequest.create({ ...all, ...init });
const read = (init: object = {}): object[] => mvcc.rangeSync(rangeOf(init)).kvs.map(plain);
const plain = (kv: Uint8Array): object => {
  const { key, value, ...rest } = KeyValue.decode(kv);
  return { key: text(key), value: text(value), ...rest };
};
const keysOf = (result: RangeResult): string[] => result.kvs.map((kv) => text(KeyValue.decode(kv).key));
const events = (start: number): string[] =>
  mvcc
    .eventsFrom(start, { maxRevisions: 1000, maxBytes: 1 << 20 })
    .flatMap((group) => group.events.map((event) => `${group.revision} ${event.type === 0 ? 'put' : 'delete'} ${text(event.key)}`));

describe('revisions', () => {
  it('start at 1 and count txns that wrote', () => {
    expect([mvcc.revision, mvcc.compactRevision]).toEqual([1, -1]);
    expect(put('a')).toBe(2);
    expect(remove('none')).toBe(2);
    const txn = mvcc.begin();
    txn.put(bytes('b'), bytes(''), 0n);
    txn.put(bytes('c'), bytes(''), 0n);
    expect(txn.end()).toMatchObject({ revision: 3, events: [{ modRevision: 3 }, { modRevision: 3 }] });
  });

  it('are found again when the store is opened, whatever was compacted (etcd 17780: the revision went down)', async () => {
    put('a');
    put('a');
    const last = remove('a');
    compact(last);
    for (const maxRows of [1, 1, 1, 1, 1]) {
      mvcc.compactStep(maxRows);
      store.applied(index);
      await store.flush();
      open();
      expect([mvcc.revision, mvcc.compactRevision]).toEqual([last, last]);
    }
    expect(mvcc.isCompacted).toBe(true);
    expect(put('a')).toBe(last + 1);
  });

  it('beyond the present are refused', () => {
    expect(() => read({ revision: 2 })).toThrow(future);
    expect(() => mvcc.compact(2)).toThrow(future);
    expect(() => mvcc.hashKv(2, patient)).toThrow(future);
  });
});

describe('compaction', () => {
  it('keeps reads at its revision and refuses those below', () => {
    put('a', '1');
    put('a', '2');
    put('a', '3');
    compact(3);
    expect(() => read({ revision: 2 })).toThrow(compacted);
    expect(() => mvcc.compact(3)).toThrow(compacted);
    for (const step of [() => {}, compactFully]) {
      step();
      expect(read({ revision: 3 })).toMatchObject([{ value: '2', version: 2 }]);
      expect(read()).toMatchObject([{ value: '3', version: 3 }]);
    }
  });

  it('keeps a deletion at its revision for watches (etcd 18089 and 19179: the delete event was lost)', () => {
    put('a');
    const deletion = remove('a');
    put('b');
    compact(deletion);
    compactFully();
    expect(events(deletion)).toEqual([`${deletion} delete a`, `${deletion + 1} put b`]);
    compact(deletion + 1);
    compactFully();
    expect(events(deletion + 1)).toEqual([`${deletion + 1} put b`]);
    expect([...store.scan('log', bytes('\0'), undefined)].length).toBe(1);
  });

  it('goes on after a restart from where it was, also when the next one was decided before it ended', async () => {
    for (let at = 0; at < 20; at++) put(`k${at % 4}`, String(at));
    compact(10);
    mvcc.compactStep(3);
    compact(18);
    mvcc.compactStep(5);
    store.applied(index);
    await store.flush();
    open();
    expect(mvcc.isCompacted).toBe(false);
    compactFully();
    // Revisions 19 to 21, and the newest at or before 18 of four keys.
    expect([...store.scan('log', bytes('\0'), undefined)].length).toBe(3 + 4);
    expect(read({ revision: 18 })).toMatchObject([{ value: '16' }, { value: '13' }, { value: '14' }, { value: '15' }]);
  });

  it('makes no difference to the checksum, however far a member has come with it', async () => {
    for (let at = 0; at < 40; at++) {
      put(`k${at % 7}`, String(at));
      if (at % 5 === 0) remove(`k${(at + 3) % 7}`);
    }
    compact(25);
    const expected = await mvcc.hashKv(0, patient);
    expect(expected).toMatchObject({ compactRevision: 25, hashRevision: mvcc.revision });
    const at30 = await mvcc.hashKv(30, patient);
    for (let isDone = false; !isDone; ) {
      isDone = mvcc.compactStep(2);
      expect(await mvcc.hashKv(0, patient)).toEqual(expected);
      expect(await mvcc.hashKv(30, patient)).toEqual(at30);
    }
    put('k0', 'x');
    expect((await mvcc.hashKv(0, patient)).hash).not.toBe(expected.hash);
    expect(await mvcc.hashKv(30, patient)).toEqual(at30);
  });

  it('waits for a checksum under way', async () => {
    for (let at = 0; at < 40; at++) put(`k${at % 7}`, String(at));
    const expected = await mvcc.hashKv(0, patient);
    const steps: boolean[] = [];
    const actual = await mvcc.hashKv(
      0,
      alternating(() => {
        if (steps.length === 0) compact(30);
        steps.push(mvcc.compactStep(100));
      }),
    );
    expect(actual).toEqual(expected);
    expect(steps).not.toContain(true);
    compactFully();
  });
});

/** Lets one row pass between interruptions. */
function alternating(between: () => void): Slicer {
  let asked = 0;
  return { isSpent: () => asked++ % 2 === 1, nextSlice: async () => between() };
}

describe('a read in slices', () => {
  const names = Array.from({ length: 150 }, (_, at) => `k${String(at).padStart(3, '0')}`);
  const change = fc.oneof(
    fc.constantFrom(...names).map((name) => () => void put(name, 'later')),
    fc.constantFrom(...names).map((name) => () => void remove(name)),
    fc.constantFrom(...names).map((name) => () => void remove(name, '\0')),
    fc.constant(() => {
      if (mvcc.revision > mvcc.compactRevision) compact(mvcc.revision);
    }),
    fc.constant(() => {
      mvcc.compactStep(1000);
      store.applied(index);
    }),
    fc.constant(() => store.flush()),
  );
  const request = fc.record({
    limit: fc.constantFrom(0, 0, 5, 100),
    sortOrder: fc.nat({ max: 2 }),
    sortTarget: fc.nat({ max: 4 }),
    keysOnly: fc.boolean(),
    countOnly: fc.boolean(),
    minModRevision: fc.constantFrom(0, 0, 60),
    back: fc.constantFrom(0, 0, 30),
  });

  it('gives what was there when it began, whatever is written and compacted meanwhile', async () => {
    await fc.assert(
      fc.asyncProperty(
        request,
        fc.array(fc.array(change, { maxLength: 4, size: 'max' }), { maxLength: 6, size: 'max' }),
        async ({ back, ...init }, changes) => {
          backend = new SpoilingBackend();
          open();
          for (const name of names) put(name, name.repeat(2));
          for (const name of names) if (name.endsWith('7')) remove(name);
          for (const name of names) if (name.endsWith('3')) put(name, 'again');
          await store.flush();
          const asked = rangeOf({ ...init, revision: back === 0 ? 0 : mvcc.revision - back });
          const expected = mvcc.rangeSync(asked);
          const expectedKvs = expected.kvs.map(plain);
          const pending = [...changes];
          const result = await mvcc.range(
            asked,
            interrupted(async () => {
              for (const step of pending.shift() ?? []) await step();
            }),
          );
          backend.spoil();
          expect({ ...result, kvs: result.kvs.map(plain) }).toEqual({ ...expected, kvs: expectedKvs });
          compactFully();
        },
      ),
      { numRuns: 60 },
    );
  });

  it('holds compaction back until it ends, also when its caller leaves', async () => {
    for (const name of names) put(name);
    const gone = new Error('the caller is gone');
    let steps = 0;
    const reading = mvcc.range(
      rangeOf({}),
      interrupted(() => {
        if (steps++ > 0) throw gone;
        for (const name of names) put(name);
        compact(mvcc.revision);
        expect(mvcc.compactStep(10_000)).toBe(false);
        expect(mvcc.compactStep(10_000)).toBe(false);
      }),
    );
    await expect(reading).rejects.toBe(gone);
    mvcc.compactStep(10_000);
    expect(mvcc.compactStep(10_000)).toBe(true);
  });

  it('asks after few rows when they are large', async () => {
    const large = 'x'.repeat(1 << 19);
    for (const name of names.slice(0, 8)) put(name, large);
    let slices = 1;
    const read = mvcc.range(
      rangeOf({}),
      interrupted(() => void slices++),
    );
    expect((await read).kvs.length).toBe(8);
    expect(slices).toBeGreaterThan(7);
  });

  it('is answered without a promise when one slice is enough', () => {
    put('a');
    const result = mvcc.range(rangeOf({}), patient);
    expect(result).not.toBeInstanceOf(Promise);
  });

  it('comes in parts of the size asked for, all of one revision', async () => {
    for (const name of names) put(name);
    await store.flush();
    const parts = mvcc.rangeParts(
      rangeOf({ limit: 120 }),
      interrupted(() => void remove('k0', 'k1')),
    );
    const found: string[] = [];
    for (let size = 10; ; size *= 2) {
      const part = await parts.next(size);
      backend.spoil();
      expect(part.kvs.length).toBeLessThanOrEqual(size);
      found.push(...part.kvs.map((kv) => text(KeyValue.decode(kv).key)));
      if (part.end !== undefined) {
        expect(part.end).toEqual({ count: 150, more: true });
        break;
      }
    }
    expect(found).toEqual(names.slice(0, 120));
  });
});

describe('a store whose history a snapshot replaced', () => {
  const replacedMessage = 'etcdserver: request timed out, waiting for the applied index took too long';

  /** The rows that a member further on has: the same history, and what `goOn` adds to it. */
  async function furtherOn(goOn: () => void): Promise<MemoryBackend> {
    const [own, ownStore, ownMvcc, ownIndex] = [backend, store, mvcc, index];
    await store.flush();
    backend = new SpoilingBackend();
    await backend.commit({ rows: rowsOf(own) });
    open();
    goOn();
    await store.flush();
    const other = backend;
    [backend, store, mvcc, index] = [own, ownStore, ownMvcc, ownIndex];
    return other;
  }

  const rowsOf = (from: MemoryBackend) =>
    tables.flatMap((table) =>
      Array.from(MemoryBackend.prototype.scan.call(from, table, bytes(''), undefined), (row) => ({ table, ...row })),
    );

  async function replaceBy(other: MemoryBackend): Promise<void> {
    index += 1000;
    await store.replace(index, (commit) => commit({ isReplacement: true, rows: rowsOf(other) }));
    store.reopen(() => mvcc.reload());
  }

  beforeEach(() => {
    put('a', '1');
    put('b', '1');
    put('a', '2');
  });

  it('has its revisions, its keys and its past', async () => {
    const heard: [number, number][] = [];
    mvcc.onReplaced((before) => heard.push([before, mvcc.revision]));
    await replaceBy(
      await furtherOn(() => {
        put('c', '5');
        remove('a');
        compact(5);
      }),
    );
    expect([mvcc.revision, mvcc.compactRevision, mvcc.isCompacted]).toEqual([6, 5, false]);
    expect(heard).toEqual([[4, 6]]);
    expect(read().map((kv) => (kv as { key: string }).key)).toEqual(['b', 'c']);
    expect(() => read({ revision: 4 })).toThrow(compacted);
    expect(events(5)).toEqual(['5 put c', '6 delete a']);
    compactFully();
    expect(put('d')).toBe(7);
    expect(read({ revision: 5 })).toHaveLength(3);
  });

  it('cannot go back, neither in its revision nor in what is compacted', async () => {
    const behind = await furtherOn(() => {});
    put('c');
    await expect(replaceBy(behind)).rejects.toThrow('revision 5, compacted at -1, replaced by 4 and -1');
  });

  it('ends reads under way with an error, whatever they hold, and none of them sees both', async () => {
    const other = await furtherOn(() => {
      for (let i = 0; i < 100; i++) put(`new${i}`);
      compact(50);
      compactFully();
    });
    for (let i = 0; i < 100; i++) put(`old${i}`);
    const pin = mvcc.pin(4);
    const parts = mvcc.rangeParts(rangeOf({}), patient);
    await parts.next(40);
    let begin = (): void => {};
    const begun = new Promise<void>((resolve) => {
      begin = resolve;
    });
    const replaced = begun.then(() => replaceBy(other));
    const whileReplaced = interrupted(() => begun);
    const afterwards = interrupted(() => replaced);
    const reads: Promise<unknown>[] = [
      mvcc.hashKv(0, whileReplaced),
      Promise.resolve(mvcc.range(rangeOf({}), whileReplaced)),
      mvcc.hashKv(0, afterwards),
      Promise.resolve(mvcc.range(rangeOf({}), afterwards)),
      Promise.resolve(mvcc.range(rangeOf({ revision: 60 }), afterwards)),
    ];
    begin();
    const ended = await Promise.allSettled(reads);
    expect(ended.map((read) => read.status === 'rejected' && String(read.reason))).toEqual(
      reads.map(() => expect.stringContaining(replacedMessage)),
    );
    expect(() => mvcc.range(rangeOf({}), patient, pin)).toThrow(replacedMessage);
    await expect(parts.next(40)).rejects.toThrow(replacedMessage);
    expect(read()).toHaveLength(102);
    expect(mvcc.compactRevision).toBe(50);
  });

  it('refuses reads while it is under way', async () => {
    const other = await furtherOn(() => put('c'));
    const replaced = replaceBy(other);
    expect(mvcc.isReadable).toBe(false);
    expect(() => read()).toThrow(replacedMessage);
    expect(() => mvcc.get(bytes('a'))).toThrow(replacedMessage);
    await replaced;
    expect(mvcc.isReadable).toBe(true);
    expect(read()).toHaveLength(3);
  });
});

describe('reads at older revisions', () => {
  it('find their way through many versions of a key', () => {
    for (let at = 0; at < 100; at++) put('busy', String(at));
    put('calm');
    remove('calm');
    put('late');
    for (const revision of [2, 11, 50, 100, 101]) {
      expect(read({ revision })).toMatchObject([{ key: 'busy', value: String(revision - 2) }]);
    }
    expect(keysOf(mvcc.rangeSync(rangeOf({ revision: 102 })))).toEqual(['busy', 'calm']);
    expect(keysOf(mvcc.rangeSync(rangeOf({ revision: 103 })))).toEqual(['busy']);
    expect(text(KeyValue.decode(mvcc.kvAt(bytes('busy'), 40) as Uint8Array).value)).toBe('38');
    expect(mvcc.kvAt(bytes('calm'), 103)).toBeUndefined();
    expect(mvcc.kvAt(bytes('bus'), 50)).toBeUndefined();
  });

  it('of one key are not found below the compact revision', () => {
    put('a', '1');
    put('a', '2');
    put('a', '3');
    compact(3);
    expect(mvcc.kvAt(bytes('a'), 2)).toBeUndefined();
    expect(plain(mvcc.kvAt(bytes('a'), 3) as Uint8Array)).toMatchObject({ value: '2' });
  });

  it('see the last change when a key changed twice in one revision', () => {
    put('a', 'before');
    const txn = mvcc.begin();
    txn.deleteRange(bytes('a'), bytes(''));
    txn.put(bytes('a'), bytes('after'), 0n);
    txn.end();
    store.applied(++index);
    put('a', 'later');
    expect(read({ revision: 3 })).toMatchObject([{ value: 'after', createRevision: 3, version: 1 }]);
    expect(events(3)).toEqual(['3 delete a', '3 put a', '4 put a']);
    compact(3);
    compactFully();
    expect(read({ revision: 3 })).toMatchObject([{ value: 'after' }]);
    compact(4);
    compactFully();
    expect([...store.scan('log', bytes('\0'), undefined)].length).toBe(1);
    expect([...store.scan('past', bytes('\0'), undefined)].length).toBe(1);
  });
});

describe('history', () => {
  it('comes in whole revisions within the bounds', () => {
    put('a', 'x'.repeat(100));
    const txn = mvcc.begin();
    for (const key of ['b', 'c', 'd']) txn.put(bytes(key), bytes('x'.repeat(100)), 0n);
    txn.end();
    store.applied(++index);
    put('e');
    const revisions = (start: number, maxRevisions: number, maxBytes: number): [number, number][] =>
      mvcc.eventsFrom(start, { maxRevisions, maxBytes }).map((group) => [group.revision, group.events.length]);
    expect(revisions(0, 10, 1000)).toEqual([
      [2, 1],
      [3, 3],
      [4, 1],
    ]);
    expect(revisions(2, 10, 1)).toEqual([[2, 1]]);
    expect(revisions(3, 1, 1000)).toEqual([[3, 3]]);
    expect(revisions(3, 10, 150)).toEqual([[3, 3]]);
    expect(revisions(5, 10, 1000)).toEqual([]);
  });

  it('is told to listeners at the end of a txn that wrote, in order', () => {
    const told: string[] = [];
    const stop = mvcc.onApplied(({ revision, events }) =>
      told.push(`${revision}/${mvcc.revision}: ${events.map((event) => text(event.key))}`),
    );
    put('b');
    put('a');
    remove('a', 'z');
    remove('a', 'z');
    stop();
    put('c');
    expect(told).toEqual(['2/2: b', '3/3: a', '4/4: a,b']);
  });
});

describe('encodeRangeResponse', () => {
  it('is the wire form of the response', () => {
    for (const name of ['a', 'b', 'c']) put(name, name.repeat(300), 7n);
    const header = ResponseHeader.create({ clusterId: 1n, memberId: 2n ** 63n, revision: 4, raftTerm: 3 });
    for (const init of [{}, { limit: 2 }, { countOnly: true }, { keysOnly: true }, { key: bytes('x') }]) {
      const result = mvcc.rangeSync(rangeOf(init));
      const expected = { header, kvs: result.kvs.map((kv) => KeyValue.decode(kv)), more: result.more, count: result.count };
      expect(encodeRangeResponse(header, result)).toEqual(RangeResponse.encode(expected));
      expect(encodeRangeResponse(header, result, 5)).toEqual(RangeResponse.encode(expected, 5));
      for (const change of [{ clusterId: 9n }, { memberId: 9n }, { revision: 9 }, { raftTerm: 9 }]) {
        const other = { ...header, ...change };
        expect(encodeRangeResponse(other, result)).toEqual(RangeResponse.encode({ ...expected, header: other }));
      }
    }
  });

  it('is the same in slices, none of which is long', async () => {
    for (let at = 0; at < 2000; at++) put(`key${at}`, 'value');
    const header = ResponseHeader.create({ clusterId: 1n, memberId: 2n, revision: 4, raftTerm: 3 });
    const result = mvcc.rangeSync(rangeOf({ key: bytes('key'), rangeEnd: bytes('kez') }));
    let slices = 1;
    const slicer = { isSpent: () => true, nextSlice: async () => void slices++ };
    expect(await encodeRangeResponseSliced(header, result, slicer)).toEqual(encodeRangeResponse(header, result));
    expect(slices).toBeGreaterThan(5);
  });
});

describe('keys and values', () => {
  it('are copied: the request may be overwritten afterwards', () => {
    const request = bytes('keyvalue');
    const txn = mvcc.begin();
    txn.put(request.subarray(0, 3), request.subarray(3), 0n);
    txn.end();
    request.fill(0);
    expect(read()).toMatchObject([{ key: 'key', value: 'value' }]);
    expect(read({ revision: mvcc.revision })).toMatchObject([{ key: 'key', value: 'value' }]);
  });
});
