import { createHash } from 'node:crypto';
import { CompactionRequest, PutRequest } from '@conclave/protocol';
import type { Entry } from '@conclave/raft';
import { Random, VirtualRuntime } from '@conclave/testing';
import { type CrashPolicy, type DiskOperation, SimulatedDisk } from '@conclave/testing/simulation';
import { type Runtime, systemRuntime } from '@conclave/wire';
import { describe, expect, test } from 'vitest';
import { Applier } from '../../apply/apply.ts';
import { encodeEntry } from '../../apply/entry.ts';
import { exitCodeOf } from '../../exit-code.ts';
import { LeaseTable } from '../../lease/lease-table.ts';
import { type MemberStorage, openMemberStorage } from '../../member-storage.ts';
import { MemberTable } from '../../membership/member-table.ts';
import { Mvcc } from '../../mvcc/mvcc.ts';
import type { LogBatch, SnapshotReader } from '../../replica/ports.ts';
import { type Backend, type BackendView, type Changes, type Row, type ScanOptions, type Table, tables } from '../backend/backend.ts';
import { MemoryBackend } from '../backend/memory.ts';
import type { SnapshotCorruptionError } from '../storage-error.ts';
import { restorationUnderWay } from './restore.ts';

/** So that the snapshot has several chunks of rows, each restored by a commit of its own. */
const valueBytes = 16_000;
const founder = { clusterId: 1n, memberId: 2n };
const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text));

/** A twin that tells of every commit when it has just happened. */
class ObservedBackend implements Backend {
  readonly inner: MemoryBackend;
  readonly #committed: () => void;

  constructor(inner: MemoryBackend, committed: () => void) {
    this.inner = inner;
    this.#committed = committed;
  }

  get = (table: Table, key: Uint8Array): Uint8Array | undefined => this.inner.get(table, key);
  scan = (table: Table, start: Uint8Array, end: Uint8Array | undefined, options?: ScanOptions): Iterable<Row> =>
    this.inner.scan(table, start, end, options);
  count = (table: Table): number => this.inner.count(table);
  view = (): BackendView => this.inner.view();
  size = (): { readonly total: number; readonly inUse: number } => this.inner.size();
  close = (): Promise<void> => this.inner.close();

  async commit(changes: Changes): Promise<void> {
    await this.inner.commit(changes);
    this.#committed();
  }
}

async function open(disk: SimulatedDisk, backend: Backend, runtime: Runtime = systemRuntime()): Promise<MemberStorage> {
  return await openMemberStorage({
    runtime,
    fatal: (cause) => {
      throw cause;
    },
    dataDir: '/data',
    founder: async () => founder,
    ports: { backend: () => backend, disk: disk.mount(), bounds: { flushBytes: 1 } },
  });
}

function applierOf({ store }: MemberStorage): Applier {
  return new Applier({ store, mvcc: new Mvcc(store), leases: new LeaseTable(store), members: new MemberTable(store) });
}

function entryAt(index: number, term = 1): Entry {
  const put = PutRequest.encode({ key: bytes(`key${index % 7}`), value: bytes(`${term}/${index} ${'v'.repeat(valueBytes)}`) });
  const data = encodeEntry({ kind: 'put', member: 1n, epoch: 1, counter: index, term, user: '', authRevision: 0, body: put });
  return { index, term, type: 'normal', data };
}

function apply(applier: Applier, { index, term }: Entry): void {
  const put = PutRequest.encode({ key: bytes(`key${index % 7}`), value: bytes(`${term}/${index} ${'v'.repeat(valueBytes)}`) });
  applier.apply(index, term, { kind: 'put', body: put, member: 1n, epoch: 1, counter: index, term, user: '', authRevision: 0 });
}

function append({ log }: MemberStorage, batch: Partial<LogBatch>): Promise<void> {
  return new Promise((resolve) => log.append({ entries: [], hardState: undefined, ...batch }, resolve));
}

/** All rows of the applied state, in short. */
function rowsOf(backend: Pick<Backend, 'scan'>): string {
  const hash = createHash('sha256');
  for (const table of tables.filter((name) => name !== 'local')) {
    for (const { key, value } of backend.scan(table, new Uint8Array(0), undefined)) {
      hash.update(`${table} ${key.length} ${value.length} `).update(key).update(value);
    }
  }
  return hash.digest('hex');
}

async function copyOf(backend: Pick<Backend, 'scan'>): Promise<MemoryBackend> {
  const copy = new MemoryBackend();
  const rows = tables.flatMap((table) => Array.from(backend.scan(table, new Uint8Array(0), undefined), (row) => ({ table, ...row })));
  await copy.commit({ rows });
  return copy;
}

// ---- the story: a member that is behind is brought a snapshot ---------------------------------------------------------------------------

const oldDurable = 12;
const oldLast = 20;
const snapshotIndex = 60;
const newLast = 63;

/** What a leader at `snapshotIndex` sends. Some entries of the receiver's log were never committed. */
async function leaderSnapshot(): Promise<{ reader: SnapshotReader; chunks: Uint8Array[]; rows: string }> {
  const backend = new MemoryBackend();
  const leader = await openMemberStorage({
    runtime: systemRuntime(),
    fatal: (cause) => {
      throw cause;
    },
    dataDir: undefined,
    founder: async () => founder,
    ports: { backend: () => backend },
  });
  const applier = applierOf(leader);
  for (let index = 1; index < snapshotIndex; index++) apply(applier, entryAt(index, index <= oldLast - 2 ? 1 : 2));
  // Some of what the receiver has is gone.
  const body = CompactionRequest.encode({ revision: 40 });
  applier.apply(snapshotIndex, 2, { kind: 'compaction', body, member: 1n, epoch: 1, counter: 0, term: 2, user: '', authRevision: 0 });
  while (!applier.compactStep(100));
  const reader = await leader.snapshots.open();
  const chunks: Uint8Array[] = [];
  for (let chunk = await reader.next(); chunk !== undefined; chunk = await reader.next()) chunks.push(chunk);
  return { reader, chunks, rows: rowsOf(backend) };
}

/** One moment of the story: what a machine that dies now has on its disks, and what it has promised. */
interface Moment {
  readonly name: string;
  readonly disk: SimulatedDisk;
  readonly rows: MemoryBackend;
  /** The log said that the snapshot's marker is durable: the leader was told. */
  readonly isMarked: boolean;
  /** The log said so of the entries behind it. */
  readonly isContinued: boolean;
}

interface Story {
  readonly moments: readonly Moment[];
  readonly oldRows: string;
}

/** It ends with all of `entries` applied and durable. */
async function earlierLife(member: MemberStorage, entries: readonly Entry[]): Promise<void> {
  await append(member, { entries, hardState: { term: 1, vote: 2n, commit: entries.length } });
  const applier = applierOf(member);
  for (const entry of entries) apply(applier, entry);
  await member.log.close();
  await member.close();
}

/** On a disk that takes its time, so that several things are under way at once. */
function story(snapshot: { reader: SnapshotReader; chunks: Uint8Array[] }): Promise<Story> {
  const runtime = new VirtualRuntime();
  return runtime.run(tell(runtime, snapshot));
}

async function tell(runtime: VirtualRuntime, snapshot: { reader: SnapshotReader; chunks: Uint8Array[] }): Promise<Story> {
  const moments: Moment[] = [];
  const pending: Promise<void>[] = [];
  let isRecording = false;
  let isMarked = false;
  let isContinued = false;
  const record = (name: string): void => {
    if (!isRecording) return;
    const flags = { name: `${moments.length + pending.length} ${name}`, disk: disk.fork(), isMarked, isContinued };
    // The copy is complete before this returns; only its promise is not.
    pending.push(copyOf(backend.inner).then((rows) => void moments.push({ ...flags, rows })));
  };
  const onOperation = ({ kind, path }: DiskOperation): void => record(`${kind} ${path}`);
  // A flush of the snapshot takes longer than all that would follow if nobody waited for it.
  const latencyMs = ({ kind, path }: DiskOperation): number => (kind === 'sync' && path.endsWith('.part') ? 20 : 1);
  const disk: SimulatedDisk = new SimulatedDisk({ runtime, latencyMs, onOperation });
  const backend = new ObservedBackend(new MemoryBackend(), () => record('commit'));
  const old = Array.from({ length: oldLast }, (_, at) => entryAt(at + 1));
  await earlierLife(await open(disk, backend, runtime), old.slice(0, oldDurable));
  const member = await open(disk, backend, runtime);
  const applier = applierOf(member);
  await append(member, { entries: old.slice(oldDurable), hardState: { term: 1, vote: 2n, commit: oldDurable } });
  // What is durable in the backend the log has no more.
  member.log.release(oldDurable);
  const oldRows = rowsOf(backend);
  isRecording = true;
  record('before all');
  const writer = await member.snapshots.receive(snapshot.reader.snapshot, snapshot.reader.id);
  for (const chunk of snapshot.chunks) await writer.write(chunk);
  await writer.finish();
  const point = { index: snapshotIndex, term: 2 };
  await append(member, { snapshot: point, hardState: { term: 2, vote: 0n, commit: snapshotIndex } });
  isMarked = true;
  record('marked');
  const newer = Array.from({ length: newLast - snapshotIndex }, (_, at) => entryAt(snapshotIndex + 1 + at, 2));
  const continued = append(member, { entries: newer.slice(0, 1), hardState: { term: 2, vote: 3n, commit: snapshotIndex } });
  await member.snapshots.restore(point);
  applier.reload();
  record('restored');
  await continued;
  member.log.release(snapshotIndex);
  await append(member, { entries: newer.slice(1), hardState: { term: 2, vote: 3n, commit: newLast } });
  isContinued = true;
  record('continued');
  for (const entry of newer) apply(applier, entry);
  await member.store.flush();
  await member.log.close();
  await member.close();
  await Promise.all(pending);
  return { moments, oldRows };
}

const policies: [string, () => Random | CrashPolicy][] = [
  ['everything is kept', () => ({ keepsName: () => true, sector: () => 'keep', garbage: (length) => new Uint8Array(length) })],
  ['nothing unflushed is kept', () => ({ keepsName: () => false, sector: () => 'drop', garbage: (length) => new Uint8Array(length) })],
  [
    'names are kept, contents are not',
    () => ({ keepsName: () => true, sector: () => 'drop', garbage: (length) => new Uint8Array(length) }),
  ],
  ...[1, 2].map((seed): [string, () => Random] => [`chance ${seed} decides`, () => new Random(seed)]),
];

/** Every moment of a start that finishes a restoration. */
async function finishing({ disk, rows }: Moment): Promise<Moment[]> {
  const moments: Moment[] = [];
  const pending: Promise<void>[] = [];
  const record = (name: string): void => {
    const flags = { name: `finishing ${pending.length} ${name}`, disk: fork.fork(), isMarked: true, isContinued: false };
    pending.push(copyOf(backend.inner).then((copy) => void moments.push({ ...flags, rows: copy })));
  };
  const fork = disk.fork({ onOperation: ({ kind, path }) => record(`${kind} ${path}`) });
  const backend = new ObservedBackend(await copyOf(rows), () => record('commit'));
  const member = await open(fork, backend);
  await member.log.close();
  await member.close();
  await Promise.all(pending);
  return moments;
}

/** What a member found itself to be after a crash. */
async function rise(
  disk: SimulatedDisk,
  rows: MemoryBackend,
): Promise<{ durable: number; rows: string; log: string[]; member: MemberStorage }> {
  const member = await open(disk, rows);
  const { entries, hardState } = member.recovered;
  const durable = member.store.durableIndex;
  const log = [`${hardState?.term}`, ...entries.filter(({ index }) => index > durable).map(({ index, term }) => `${term}/${index}`)];
  return { durable, rows: rowsOf(rows), log, member };
}

describe('a member that is brought a snapshot', () => {
  test('is after a crash at any moment what it was, or what the snapshot made of it, with all that it had promised', async () => {
    const snapshot = await leaderSnapshot();
    const { moments, oldRows } = await story(snapshot);
    const oldLog = ['1', ...Array.from({ length: oldLast - oldDurable }, (_, at) => `1/${oldDurable + 1 + at}`)];
    const finished: string[] = [];
    const seen = new Set<string>();
    for (const moment of moments) {
      for (const [policy, crash] of policies) {
        const disk = moment.disk.fork();
        disk.cutPower(crash());
        const rows = await copyOf(moment.rows);
        const found = await rise(disk, rows);
        const where = `${moment.name}, ${policy}`;
        if (found.durable === oldDurable) {
          expect(moment.isMarked, where).toBe(false);
          expect(found.rows === oldRows, where).toBe(true);
          expect(found.log, where).toEqual(oldLog);
          seen.add('old');
        } else if (found.durable === snapshotIndex) {
          expect(found.rows === snapshot.rows, where).toBe(true);
          const newer = Array.from({ length: newLast - snapshotIndex }, (_, at) => `2/${snapshotIndex + 1 + at}`);
          expect(['2', ...newer], where).toEqual(expect.arrayContaining(found.log));
          if (moment.isContinued) expect(found.log, where).toEqual(['2', ...newer]);
          if (restorationUnderWay(moment.rows) !== undefined) finished.push(where);
          seen.add('new');
        } else {
          expect(found.durable, where).toBeGreaterThan(snapshotIndex);
          expect(found.durable + found.log.length - 1, where).toBe(newLast);
          seen.add('newer');
        }
        // And the same once more, after this start too.
        await found.member.log.close();
        disk.killProcess();
        const again = await rise(disk, rows);
        expect([again.durable === found.durable, again.rows === found.rows, again.log], where).toEqual([true, true, found.log]);
        expect(
          disk.names('/data/snap').filter((name) => name.endsWith('.snap')),
          where,
        ).toEqual([]);
      }
    }
    expect([...seen].sort()).toEqual(['new', 'newer', 'old']);
    expect(finished.length).toBeGreaterThanOrEqual(3 * policies.length);
    expect(moments.length).toBeGreaterThan(30);
  });

  test('may crash once more at any moment of the start that finishes it', async () => {
    const snapshot = await leaderSnapshot();
    const { moments } = await story(snapshot);
    const marked = moments.find(({ isMarked }) => isMarked)!;
    const underWay = moments.filter(({ rows }) => restorationUnderWay(rows) !== undefined);
    const again = (await Promise.all([marked, underWay[0]!, underWay.at(-1)!].map(finishing))).flat();
    expect(again.length).toBeGreaterThan(40);
    for (const moment of again) {
      const disk = moment.disk.fork();
      disk.cutPower(new Random(again.indexOf(moment)));
      const found = await rise(disk, moment.rows);
      expect([found.durable, found.rows === snapshot.rows], moment.name).toEqual([snapshotIndex, true]);
    }
  });

  test('does not start where the snapshot that its log counts on is damaged or gone, and says where', async () => {
    const { moments } = await story(await leaderSnapshot());
    const marked = moments.find(({ isMarked }) => isMarked)!;
    const underWay = moments.find(({ rows }) => restorationUnderWay(rows) !== undefined)!;
    for (const moment of [marked, underWay]) {
      const name = moment.disk.names('/data/snap').find((other) => other.endsWith('.snap'))!;
      const file = `/data/snap/${name}`;
      const whole = moment.disk.contents(file);
      const damages: [string, number, (disk: SimulatedDisk) => Promise<void>][] = [
        ['it cannot be opened', 0, (disk) => disk.mount().unlink(file)],
        ['the checksum of a chunk does not match', 400, async (disk) => disk.overwrite(file, 3000, new Uint8Array(512))],
        ['the checksum of a chunk does not match', whole.length, async (disk) => disk.overwrite(file, whole.length - 9, new Uint8Array(9))],
        ['it is cut short', 0, async (disk) => disk.overwrite(file, 0, Uint8Array.of(0, 0, 0, 1))],
      ];
      for (const [reason, offset, damage] of damages) {
        const disk = moment.disk.fork();
        await damage(disk);
        const rows = await copyOf(moment.rows);
        const before = rowsOf(rows);
        const refusal = await rise(disk, rows).catch((error: unknown) => error);
        expect(refusal).toMatchObject({ code: 'snapshot-corrupt', file, index: snapshotIndex, message: expect.stringContaining(reason) });
        const found = (refusal as SnapshotCorruptionError).offset;
        expect([found <= offset, found > offset - 400]).toEqual([true, true]);
        expect(rowsOf(rows)).toBe(before);
        expect(exitCodeOf(refusal)).toBe(4);
      }
    }
  });

  test('does not start on a state that is half replaced by what its log does not know', async () => {
    const { moments } = await story(await leaderSnapshot());
    const underWay = moments.find(({ rows }) => restorationUnderWay(rows) !== undefined)!;
    const refusal = await rise(moments[0]!.disk, underWay.rows).catch((error: unknown) => error);
    const message = expect.stringContaining('the log does not know of it');
    expect(refusal).toMatchObject({ code: 'snapshot-corrupt', index: snapshotIndex, message });
  });
});
