import { Maintenance } from '@conclave/protocol';
import type { Engine } from '../connection/engine.ts';
import type { RequestOptions } from '../connection/procedure.ts';
import { type Integer, toCounter } from '../kv/text.ts';
import { change, nothing, read, request } from './call.ts';
import { type SnapshotOptions, snapshotOf } from './snapshot.ts';

/** What a member says about itself. */
export interface MemberStatus {
  readonly clusterId: bigint;
  readonly memberId: bigint;
  /** The revision its store has reached. */
  readonly revision: bigint;
  readonly version: string;
  /** The version of the stored data; undefined before 3.6. */
  readonly storageVersion: string | undefined;
  /** What its data takes on disk. */
  readonly dbSizeBytes: number;
  /** What of that is in use; defragmenting gives the rest back. */
  readonly dbSizeInUseBytes: number;
  /** What it may take; undefined before 3.6. */
  readonly dbSizeQuotaBytes: number | undefined;
  /** The member it takes for the leader; undefined: none. */
  readonly leader: bigint | undefined;
  readonly isLeader: boolean;
  readonly isLearner: boolean;
  readonly raftTerm: bigint;
  readonly raftIndex: bigint;
  readonly raftAppliedIndex: bigint;
  /** What is wrong, in the server's words: alarms, or that there is no leader. */
  readonly errors: readonly string[];
}

export interface HashKvOptions extends RequestOptions {
  /** The revision up to which to hash. Default: the present one. */
  readonly revision?: Integer | undefined;
}

export interface KvHash {
  readonly hash: number;
  /** History before this revision is gone, and is not in the hash; -1: nothing was ever compacted. Only hashes with equal ones compare. */
  readonly compactRevision: bigint;
  /** The revision that was hashed up to; undefined before 3.6, when it was not asked for. */
  readonly hashRevision: bigint | undefined;
}

/** The upkeep of one member. Made by {@link MaintenanceClient.at}. Every call goes to that member and to no other. */
export class MemberMaintenance {
  readonly #engine: () => Engine;

  /** @internal */
  constructor(engine: () => Engine) {
    this.#engine = engine;
  }

  /**
   * How the member is. Answered without a leader, too, and by a learner.
   *
   * @throws ConclaveError `unavailable`, `deadline-exceeded`, …
   * @example
   * ```ts
   * const { isLeader, errors } = await client.maintenance.at('127.0.0.1:2379').status();
   * ```
   */
  status(options?: RequestOptions): Promise<MemberStatus> {
    return request(this.#engine(), statusProcedure, {}, options);
  }

  /**
   * Gives unused space of the member's data back to the file system. The member serves nobody meanwhile: one at a time, the leader last. For
   * large data allow more time with `deadlineMs`; the member goes on when nobody waits any more.
   *
   * @throws ConclaveError `unimplemented`, `unavailable`, `deadline-exceeded`, …
   * @example
   * ```ts
   * await client.maintenance.at('127.0.0.1:2379').defragment({ deadlineMs: 60_000 });
   * ```
   */
  defragment(options?: RequestOptions): Promise<void> {
    return request(this.#engine(), defragmentProcedure, {}, options);
  }

  /**
   * A hash of the whole of the member's data, as it lies. For tests: equal members can differ in it.
   *
   * @throws ConclaveError `unimplemented`, `unavailable`, `deadline-exceeded`, …
   * @example
   * ```ts
   * const hash = await client.maintenance.at('127.0.0.1:2379').hash();
   * ```
   */
  hash(options?: RequestOptions): Promise<number> {
    return request(this.#engine(), hashProcedure, {}, options);
  }

  /**
   * A hash of the member's keys and their history up to a revision: equal on all members of a cluster that compacted equally far.
   *
   * @throws ConclaveError `compacted`, `future-revision`, `unavailable`, `deadline-exceeded`, …
   * @example
   * ```ts
   * const { revision } = await client.put('config/color', 'red');
   * const { hash } = await client.maintenance.at('127.0.0.1:2379').hashKv({ revision });
   * ```
   */
  async hashKv(options?: HashKvOptions): Promise<KvHash> {
    const revision = options?.revision === undefined ? 0 : toCounter(options.revision, 'revision');
    const hashed = await request(this.#engine(), hashKvProcedure, { revision }, options);
    return revision > 0 && hashed.hashRevision === undefined ? { ...hashed, hashRevision: BigInt(revision) } : hashed;
  }

  /**
   * The whole of the member's data as one file, which `etcdctl snapshot status` and `etcdutl snapshot restore` take. Its checksum stands at the
   * end and is verified before the end is told: a loop that ends without an error has read a sound file.
   *
   * What was written before an error is not sound. Write to another name first, and rename when it is whole.
   *
   * @throws ConclaveError `snapshot-corrupt`, `unimplemented`, `unavailable`, `deadline-exceeded`, `cancelled`, … as the error of the loop
   * @example
   * ```ts
   * import { createWriteStream } from 'node:fs';
   * import { rename } from 'node:fs/promises';
   * import { pipeline } from 'node:stream/promises';
   *
   * const onProgress = ({ remainingBytes }: SnapshotProgress) => console.log(`${remainingBytes} to go`);
   * await pipeline(client.maintenance.at('127.0.0.1:2379').snapshot({ onProgress }), createWriteStream('backup.part'));
   * await rename('backup.part', 'backup.db');
   * ```
   */
  snapshot(options: SnapshotOptions = {}): AsyncIterable<Uint8Array> {
    return { [Symbol.asyncIterator]: () => snapshotOf(this.#engine(), options) };
  }
}

const { status, defragment, hash, hashKv } = Maintenance.methods;

const statusProcedure = read(status, (response): MemberStatus => {
  const { header, leader, storageVersion, dbSizeQuota } = response;
  const memberId = header?.memberId ?? 0n;
  return {
    clusterId: header?.clusterId ?? 0n,
    memberId,
    revision: BigInt(header?.revision ?? 0),
    version: response.version,
    storageVersion: storageVersion === '' ? undefined : storageVersion,
    dbSizeBytes: response.dbSize,
    dbSizeInUseBytes: response.dbSizeInUse,
    dbSizeQuotaBytes: dbSizeQuota === 0 ? undefined : dbSizeQuota,
    leader: leader === 0n ? undefined : leader,
    isLeader: leader !== 0n && leader === memberId,
    isLearner: response.isLearner,
    raftTerm: BigInt(response.raftTerm),
    raftIndex: BigInt(response.raftIndex),
    raftAppliedIndex: BigInt(response.raftAppliedIndex),
    errors: response.errors,
  };
});

const defragmentProcedure = change(defragment, nothing);

const hashProcedure = read(hash, (response) => response.hash);

const hashKvProcedure = read(
  hashKv,
  (response): KvHash => ({
    hash: response.hash,
    compactRevision: BigInt(response.compactRevision),
    hashRevision: response.hashRevision === 0 ? undefined : BigInt(response.hashRevision),
  }),
);
