import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, PutRequest, TxnRequest } from '@conclave/protocol';
import { VirtualRuntime } from '@conclave/testing';
import { SimulatedDisk } from '@conclave/testing/simulation';
import { systemRuntime } from '@conclave/wire';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Applier } from '../../apply/apply.ts';
import type { RequestKind } from '../../apply/entry.ts';
import { LeaseTable } from '../../lease/lease-table.ts';
import { type MemberStorage, openMemberStorage } from '../../member-storage.ts';
import { MemberTable } from '../../membership/member-table.ts';
import { Mvcc } from '../../mvcc/mvcc.ts';
import type { SnapshotReader, SnapshotWriter } from '../../replica/ports.ts';
import { type Backend, type Changes, tables } from '../backend/backend.ts';
import { BufferedStore } from '../backend/buffered-store.ts';
import { LmdbBackend } from '../backend/lmdb.ts';
import { MemoryBackend } from '../backend/memory.ts';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'conclave-snapshots-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

const clusterId = 0xcdf818194e3a8c32n;
const slicer = { isSpent: () => false, nextSlice: () => Promise.resolve() };
const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'latin1'));
let databases = 0;

const engines: Record<string, () => Backend> = {
  LMDB: () => new LmdbBackend({ path: join(folder, `db${databases++}`), runtime: systemRuntime(), mapBytes: 1 << 17 }),
  'the twin': () => new MemoryBackend(),
};
const pairs = Object.keys(engines).flatMap((from) => Object.keys(engines).map((to) => [from, to] as const));

/** A member without raft: entries are applied as they are made. */
class Member implements AsyncDisposable {
  readonly backend: Backend;
  readonly storage: MemberStorage;
  readonly mvcc: Mvcc;
  readonly applier: Applier;
  readonly failures: Error[];

  private constructor(backend: Backend, storage: MemberStorage, failures: Error[]) {
    const { store } = storage;
    this.backend = backend;
    this.storage = storage;
    this.failures = failures;
    this.mvcc = new Mvcc(store);
    this.applier = new Applier({ store, mvcc: this.mvcc, leases: new LeaseTable(store), members: new MemberTable(store) });
  }

  /** With a disk its snapshots are files, otherwise they are in memory. The log is the test's business. */
  static async open(backend: Backend, disk?: SimulatedDisk): Promise<Member> {
    const failures: Error[] = [];
    const storage = await openMemberStorage({
      runtime: systemRuntime(),
      fatal: (cause) => {
        failures.push(cause);
        throw cause;
      },
      dataDir: disk && '/data',
      founder: async () => ({ clusterId, memberId: 7n }),
      // A commit for every chunk of rows.
      ports: { backend: () => backend, bounds: { flushBytes: 1 }, ...(disk && { disk: disk.mount() }) },
    });
    return new Member(backend, storage, failures);
  }

  apply(kind: RequestKind, body: Uint8Array, term = 3): void {
    const index = this.applier.appliedIndex + 1;
    const applied = this.applier.apply(index, term, { kind, body, member: 1n, epoch: 1, counter: index, term, user: '', authRevision: 0 });
    if (applied.kind === 'failed') throw applied.error;
  }

  put(key: string, value = key, lease = 0n): void {
    this.apply('put', PutRequest.encode({ key: bytes(key), value: bytes(value), lease }));
  }

  compact(revision: number): void {
    this.apply('compaction', CompactionRequest.encode({ revision }));
  }

  get snapshots(): MemberStorage['snapshots'] {
    return this.storage.snapshots;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.storage.log.close();
    await this.storage.close();
  }
}

/** Stops in the middle of everything when it is asked for one commit more than it may make. */
class StoppingBackend implements Backend {
  readonly #inner: Backend;
  #left: number;
  readonly stopped: Promise<'stopped'>;
  #stop: (word: 'stopped') => void = () => {};

  constructor(inner: Backend, commits: number) {
    this.#inner = inner;
    this.#left = commits;
    this.stopped = new Promise((resolve) => {
      this.#stop = resolve;
    });
  }

  get: Backend['get'] = (table, key) => this.#inner.get(table, key);
  scan: Backend['scan'] = (table, start, end, options) => this.#inner.scan(table, start, end, options);
  count: Backend['count'] = (table) => this.#inner.count(table);
  view: Backend['view'] = () => this.#inner.view();
  size: Backend['size'] = () => this.#inner.size();
  close: Backend['close'] = () => this.#inner.close();

  commit(changes: Changes): Promise<void> {
    if (this.#left-- > 0) return this.#inner.commit(changes);
    this.#stop('stopped');
    return new Promise(() => {});
  }
}

/** Keys of all kinds, some with a past, a lease, deletions, and a compaction that storage has not got far with. */
function fill(member: Member): void {
  member.apply('leaseGrant', LeaseGrantRequest.encode({ id: 99n, ttl: 60 }));
  for (let i = 0; i < 300; i++) member.put(`key${i % 100}`, `value ${i}`, i % 3 === 0 ? 99n : 0n);
  member.put(`long ${'x'.repeat(3000)}`, 'a key longer than the engine takes');
  member.put('large', 'v'.repeat(700_000));
  for (let i = 0; i < 40; i++) member.put(`medium${i}`, 'w'.repeat(20_000));
  member.apply('deleteRange', DeleteRangeRequest.encode({ key: bytes('key1'), rangeEnd: bytes('key2') }));
  member.apply('txn', TxnRequest.encode({ success: [{ requestPut: { key: bytes('a') } }, { requestPut: { key: bytes('b') } }] }));
  member.compact(200);
  member.applier.compactStep(20);
}

async function chunksOf(reader: SnapshotReader): Promise<Uint8Array[]> {
  const chunks: Uint8Array[] = [];
  for (let chunk = await reader.next(); chunk !== undefined; chunk = await reader.next()) chunks.push(chunk);
  reader.close();
  return chunks;
}

async function receive(member: Member, reader: SnapshotReader, chunks: readonly Uint8Array[]): Promise<SnapshotWriter> {
  const writer = await member.snapshots.receive(reader.snapshot, reader.id);
  for (const chunk of chunks.slice(writer.next)) await writer.write(chunk);
  return writer;
}

async function install(member: Member, reader: SnapshotReader): Promise<void> {
  const writer = await receive(member, reader, await chunksOf(reader));
  await writer.finish();
  await member.snapshots.restore(reader.snapshot);
  member.applier.reload();
}

/** All rows of the applied state. */
function rowsOf(backend: Pick<Backend, 'scan'>): string[] {
  return tables.filter((table) => table !== 'local').flatMap((table) => rowsIn(backend, table));
}

function rowsIn(backend: Pick<Backend, 'scan'>, table: (typeof tables)[number]): string[] {
  const hex = (raw: Uint8Array): string =>
    raw.length < 100 ? Buffer.from(raw).toString('hex') : `${raw.length}:${Buffer.from(raw).toString('base64', 0, 30)}`;
  return Array.from(backend.scan(table, new Uint8Array(0), undefined), ({ key, value }) => `${table} ${hex(key)} ${hex(value)}`);
}

describe.each(pairs)('a snapshot of %s for %s', (from, to) => {
  test('makes the receiver what the sender was, old state and all', async () => {
    await using sender = await Member.open(engines[from]!());
    fill(sender);
    await using receiver = await Member.open(engines[to]!());
    for (let i = 0; i < 50; i++) receiver.put(`gone${i}`);
    const reader = await sender.snapshots.open();
    expect(reader.snapshot).toMatchObject({ index: sender.applier.appliedIndex, term: 3 });
    await install(receiver, reader);
    expect(rowsOf(receiver.backend)).toEqual(rowsOf(sender.backend));
    expect(receiver.applier.appliedIndex).toBe(sender.applier.appliedIndex);
    expect(receiver.applier.durableIndex).toBe(sender.applier.appliedIndex);
    expect(receiver.applier.appliedTerm).toBe(3);
    expect(receiver.mvcc.revision).toBe(sender.mvcc.revision);
    expect(receiver.mvcc.compactRevision).toBe(200);
    expect(receiver.mvcc.isCompacted).toBe(false);
    for (const member of [sender, receiver]) member.put('after');
    // One of the two is far ahead with taking out what was compacted.
    while (!receiver.applier.compactStep(100));
    expect(await receiver.mvcc.hashKv(0, slicer)).toEqual(await sender.mvcc.hashKv(0, slicer));
    expect(receiver.failures).toEqual([]);
  });

  test('is of one moment, whatever is applied, compacted and committed meanwhile', async () => {
    await using sender = await Member.open(engines[from]!());
    fill(sender);
    const before = await sender.snapshots.open();
    const rows = rowsOf(sender.backend);
    const first = await before.next();
    const chunks = [first!];
    for (let chunk = await before.next(); chunk !== undefined; chunk = await before.next()) {
      chunks.push(chunk);
      for (let i = 0; i < 20; i++) sender.put(`key${i}`, `newer ${chunks.length}`);
      sender.apply('deleteRange', DeleteRangeRequest.encode({ key: bytes('medium'), rangeEnd: bytes('mediun') }));
      for (let i = 0; i < 10; i++) sender.applier.compactStep(20);
      await sender.storage.store.flush();
    }
    before.close();
    await using receiver = await Member.open(engines[to]!());
    await (await receive(receiver, before, chunks)).finish();
    await receiver.snapshots.restore(before.snapshot);
    expect(rowsOf(receiver.backend)).toEqual(rows);
    expect(rowsOf(sender.backend)).not.toEqual(rows);
  });
});

describe('reading', () => {
  test('goes by chunks of at most 256 KiB or one row, and lets the loop have its turn', async () => {
    await using sender = await Member.open(new MemoryBackend());
    fill(sender);
    const reader = await sender.snapshots.open();
    const sizes = (await chunksOf(reader)).map((chunk) => chunk.length);
    expect(sizes.filter((size) => size > 256 * 1024)).toHaveLength(2);
    expect(sizes.length).toBeGreaterThan(6);
    expect(sizes.length).toBeLessThan(20);
  });

  test('of a member that has applied nothing is refused', async () => {
    await using sender = await Member.open(new MemoryBackend());
    await expect(sender.snapshots.open()).rejects.toThrow('nothing is applied yet');
  });

  test('of a member whose stored values are damaged is the end of that member', async () => {
    const path = join(folder, 'rotten');
    const openLmdb = (): LmdbBackend => new LmdbBackend({ path, runtime: systemRuntime(), mapBytes: 1 << 17 });
    {
      await using sender = await Member.open(openLmdb(), new SimulatedDisk());
      fill(sender);
      await sender.storage.store.flush();
    }
    const file = join(path, 'data.mdb');
    const stored = readFileSync(file);
    const value = stored.indexOf('w'.repeat(15_000));
    stored[value + 7_000] = 0;
    writeFileSync(file, stored);
    const failures: Error[] = [];
    const fatal = (cause: Error): never => {
      failures.push(cause);
      throw cause;
    };
    const store = new BufferedStore({ backend: openLmdb(), runtime: systemRuntime(), fatal });
    const view = store.committed();
    const read = (): unknown => tables.map((table) => [...view.scan(table, new Uint8Array(0), undefined)]);
    expect(read).toThrow(/data\.mdb: table log: the value of key [0-9a-f]{32} \(16 bytes, hex\) does not match its checksum/);
    expect(failures).toEqual([expect.objectContaining({ code: 'state-corrupt' })]);
    await store.close();
  });

  test('leaves out what a member remembers for itself, and restoring keeps it', async () => {
    await using sender = await Member.open(new MemoryBackend());
    fill(sender);
    sender.storage.memory.notePeer(5n, { incarnation: 3, index: 17 });
    await using receiver = await Member.open(new MemoryBackend());
    receiver.storage.memory.notePeer(6n, { incarnation: 2, index: 4 });
    await install(receiver, await sender.snapshots.open());
    receiver.storage.memory.notePeer(7n, { incarnation: 1, index: 9 });
    receiver.put('x');
    await receiver.storage.store.flush();
    expect(receiver.storage.memory.peer(5n)).toBeUndefined();
    expect(receiver.storage.memory.peer(6n)).toEqual({ incarnation: 2, index: 4 });
    expect(rowsIn(receiver.backend, 'local')).toHaveLength(3);
  });
});

describe('receiving', () => {
  const damages: [string, (chunks: Uint8Array[]) => Uint8Array[]][] = [
    ['a bit is wrong in the header', (chunks) => chunks.with(0, flipped(chunks[0]!, 40))],
    ['a bit is wrong in a row', (chunks) => chunks.with(3, flipped(chunks[3]!, 1000))],
    ['a bit is wrong in the trailer', (chunks) => chunks.with(-1, flipped(chunks.at(-1)!, 30))],
    ['a chunk is missing', (chunks) => chunks.toSpliced(2, 1)],
    ['a chunk comes twice', (chunks) => chunks.toSpliced(2, 0, chunks[2]!)],
    ['two chunks are swapped', (chunks) => chunks.with(2, chunks[3]!).with(3, chunks[2]!)],
    ['the end is missing', (chunks) => chunks.slice(0, -1)],
    ['something follows the end', (chunks) => [...chunks, chunks.at(-1)!]],
    ['it is empty', () => []],
  ];

  test.each(damages)('refuses a snapshot of which %s', async (_, damage) => {
    await using sender = await Member.open(new MemoryBackend());
    fill(sender);
    const reader = await sender.snapshots.open();
    const chunks = await chunksOf(reader);
    for (const disk of [undefined, new SimulatedDisk()]) {
      await using receiver = await Member.open(new MemoryBackend(), disk);
      receiver.put('mine');
      const rows = rowsOf(receiver.backend);
      const received = receive(receiver, reader, damage(chunks)).then((writer) => writer.finish());
      await expect(received).rejects.toMatchObject({ code: 'snapshot-corrupt', index: reader.snapshot.index });
      await expect(receiver.snapshots.restore(reader.snapshot)).rejects.toMatchObject({ code: 'snapshot-corrupt' });
      expect(receiver.failures).toHaveLength(1);
      expect(rowsOf(receiver.backend)).toEqual(rows);
    }
  });

  test('refuses that of another cluster, another index, another configuration', async () => {
    await using sender = await Member.open(new MemoryBackend());
    fill(sender);
    const reader = await sender.snapshots.open();
    const [header] = await chunksOf(reader);
    await using receiver = await Member.open(new MemoryBackend());
    const { snapshot, id } = reader;
    const others = [
      { ...snapshot, index: snapshot.index + 1 },
      { ...snapshot, term: snapshot.term + 1 },
      { ...snapshot, confState: { voters: [1n], learners: [] } },
    ];
    for (const other of others) {
      const writer = await receiver.snapshots.receive(other, id);
      await expect(writer.write(header!)).rejects.toMatchObject({ code: 'snapshot-corrupt' });
    }
  });

  test('goes on where it was after its process died, also in the middle of a chunk', async () => {
    await using sender = await Member.open(new MemoryBackend());
    fill(sender);
    const reader = await sender.snapshots.open();
    const chunks = await chunksOf(reader);
    const disk = new SimulatedDisk();
    const backend = new MemoryBackend();
    const first = await Member.open(backend, disk);
    const begun = await first.snapshots.receive(reader.snapshot, reader.id);
    for (const chunk of chunks.slice(0, 4)) await begun.write(chunk);
    disk.killProcess();
    await using second = await Member.open(backend, disk);
    const writer = await second.snapshots.receive(reader.snapshot, reader.id);
    expect(writer.next).toBe(4);
    for (const chunk of chunks.slice(4)) await writer.write(chunk);
    await writer.finish();
    expect(disk.names('/data/snap')).toEqual([expect.stringMatching(/^[0-9a-f]{16}-0000000000000003\.snap$/)]);
    await second.snapshots.restore(reader.snapshot);
    expect(rowsOf(second.backend)).toEqual(rowsOf(sender.backend));
    expect(disk.names('/data/snap')).toEqual([]);
  });

  test('throws away what came of another reading, and what was given up', async () => {
    await using sender = await Member.open(new MemoryBackend());
    fill(sender);
    const reader = await sender.snapshots.open();
    const chunks = await chunksOf(reader);
    const disk = new SimulatedDisk();
    await using receiver = await Member.open(new MemoryBackend(), disk);
    const first = await receiver.snapshots.receive(reader.snapshot, 1);
    await first.write(chunks[0]!);
    expect(await receiver.snapshots.receive(reader.snapshot, 1)).toBe(first);
    const second = await receiver.snapshots.receive(reader.snapshot, 2);
    expect(second.next).toBe(0);
    expect(disk.names('/data/snap')).toHaveLength(1);
    await expect(first.write(chunks[1]!)).rejects.toThrow('has ended');
    await second.abandon();
    expect(disk.names('/data/snap')).toEqual([]);
    expect((await receiver.snapshots.receive(reader.snapshot, 2)).next).toBe(0);
  });
});

test('LMDB, left half way through a restoration, is finished by the next start', async () => {
  await using sender = await Member.open(new MemoryBackend());
  fill(sender);
  const reader = await sender.snapshots.open();
  const chunks = await chunksOf(reader);
  const { snapshot } = reader;
  const point = { index: snapshot.index, term: snapshot.term };
  let stops = 0;
  for (let commits = 1; ; commits += 3) {
    const path = join(folder, `half${commits}`);
    const openLmdb = (): LmdbBackend => new LmdbBackend({ path, runtime: systemRuntime(), mapBytes: 1 << 17 });
    const disk = new SimulatedDisk();
    const inner = openLmdb();
    // One is for the count of starts, one for the old state.
    const stopping = new StoppingBackend(inner, 2 + commits);
    const first = await Member.open(stopping, disk);
    for (let i = 0; i < 10; i++) first.put(`gone${i}`);
    await first.storage.store.flush();
    await (await receive(first, reader, chunks)).finish();
    const batch = { entries: [], hardState: { term: 3, vote: 0n, commit: snapshot.index }, snapshot: point };
    await new Promise<void>((resolve) => first.storage.log.append(batch, resolve));
    const restored = first.snapshots.restore(snapshot).then(() => 'done' as const);
    const end = await Promise.race([restored, stopping.stopped]);
    disk.killProcess();
    await inner.close();
    if (end === 'done') break;
    stops++;
    await using second = await Member.open(openLmdb(), disk);
    expect(second.storage.recovered.entries).toEqual([]);
    expect(rowsOf(second.backend)).toEqual(rowsOf(sender.backend));
    expect([second.applier.appliedIndex, second.mvcc.revision]).toEqual([snapshot.index, sender.mvcc.revision]);
  }
  expect(stops).toBeGreaterThan(2);
});

describe('several at once', () => {
  test('one that comes while another ends or is given up meets nothing that is left of it', async () => {
    await using sender = await Member.open(new MemoryBackend());
    fill(sender);
    const reader = await sender.snapshots.open();
    const chunks = await chunksOf(reader);
    for (const end of ['finish', 'abandon'] as const) {
      for (const id of [reader.id, reader.id + 1]) {
        const runtime = new VirtualRuntime();
        const disk = new SimulatedDisk({ runtime, latencyMs: () => 1 });
        await runtime.run(
          (async () => {
            await using receiver = await Member.open(new MemoryBackend(), disk);
            const first = await receive(receiver, reader, chunks);
            const ended = first[end]();
            const second = await receiver.snapshots.receive(reader.snapshot, id);
            expect(second.next).toBe(0);
            for (const chunk of chunks) await second.write(chunk);
            await second.finish();
            await ended;
            await receiver.snapshots.restore(reader.snapshot);
            receiver.applier.reload();
            expect(rowsOf(receiver.backend)).toEqual(rowsOf(sender.backend));
            expect(disk.names('/data/snap')).toEqual([]);
          })(),
        );
      }
    }
  });

  test('one that was complete and is not used any more goes when the next one comes, and one that is still to be put in place stays', async () => {
    await using sender = await Member.open(new MemoryBackend());
    fill(sender);
    const early = await sender.snapshots.open();
    const disk = new SimulatedDisk();
    await using receiver = await Member.open(new MemoryBackend(), disk);
    await (await receive(receiver, early, await chunksOf(early))).finish();
    sender.put('later');
    const late = await sender.snapshots.open();
    const chunks = await chunksOf(late);
    await (await receive(receiver, late, chunks)).finish();
    expect(disk.names('/data/snap')).toHaveLength(2);
    for (let index = 1; index <= early.snapshot.index; index++) receiver.applier.applyEmpty(index, 3);
    await receiver.storage.store.flush();
    await receiver.snapshots.receive({ ...late.snapshot, index: late.snapshot.index + 1 }, 1);
    expect(disk.names('/data/snap')).toEqual([expect.stringContaining('.snap'), expect.stringContaining('.part')]);
    await receiver.snapshots.restore(late.snapshot);
    receiver.applier.reload();
    expect(rowsOf(receiver.backend)).toEqual(rowsOf(sender.backend));
  });

  test('closing lets go of one on its way, and the next start goes on with it', async () => {
    await using sender = await Member.open(new MemoryBackend());
    fill(sender);
    const reader = await sender.snapshots.open();
    const chunks = await chunksOf(reader);
    const disk = new SimulatedDisk();
    const backend = new MemoryBackend();
    {
      await using receiver = await Member.open(backend, disk);
      await receive(receiver, reader, chunks.slice(0, 3));
    }
    await using receiver = await Member.open(backend, disk);
    expect((await receiver.snapshots.receive(reader.snapshot, reader.id)).next).toBe(3);
  });
});

function flipped(chunk: Uint8Array, at: number): Uint8Array {
  const copy = new Uint8Array(chunk);
  copy[at]! ^= 4;
  return copy;
}
