import { checkHashes, checkHistory, type HashSample, type History, type Operation, type TxnOperation } from '@conclave/testkit';
import { durableIndexKey } from '../../packages/server/src/storage/backend/buffered-store.ts';
import { surveyLog } from '../../packages/server/src/storage/wal/recovery.ts';
import type { Admin } from './admin.ts';
import type { Member } from './member.ts';
import type { World } from './world.ts';

/** Between two looks at the hashes of all members. */
const sampleMs = 4_000;

/** What is looked at when the run is over. */
export class Verdict {
  readonly #world: World;
  readonly #admin: Admin;
  readonly #hashes: HashSample[] = [];
  /** What every watch has been told by the time it is closed: set once all members agree. */
  settledRevision: number | undefined;

  constructor(world: World, admin: Admin) {
    this.#world = world;
    this.#admin = admin;
  }

  /** Asks all members for the hash of their data at one revision, again and again, while everything goes on. */
  async sampleHashes(): Promise<void> {
    for (;;) {
      await this.#world.sleep(sampleMs);
      const { members } = this.#world;
      const statuses = await Promise.all(members.map((member) => this.#admin.status(member)));
      const revisions = statuses.flatMap((status) => ('ok' in status ? [status.ok.header?.revision ?? 0] : []));
      if (revisions.length > 1) await Promise.all(members.map((member) => this.#sampleHash(member, Math.min(...revisions))));
    }
  }

  async #sampleHash(member: Member, revision: number): Promise<string | undefined> {
    const answer = await this.#admin.hashKv(member, revision);
    if ('error' in answer) return answer.error;
    this.#hashes.push({ member: member.name, revision, compactRevision: answer.ok.compactRevision, hash: answer.ok.hash });
    return undefined;
  }

  /** All members hold the same data at the same revision. */
  async compareMembers(): Promise<void> {
    const { findings, members, time } = this.#world;
    const end = time.monotonic() + 20_000;
    let revision = 0;
    for (;;) {
      const statuses = await Promise.all(members.map((member) => this.#admin.status(member)));
      const indexes = statuses.map((status) => ('ok' in status ? status.ok.raftAppliedIndex : -1));
      const revisions = statuses.map((status) => ('ok' in status ? (status.ok.header?.revision ?? 0) : -1));
      revision = Math.min(...revisions);
      if (new Set(indexes).size === 1 && indexes[0] !== -1) {
        if (new Set(revisions).size > 1)
          findings.add('equal-hashes', `members at index ${indexes[0]} are at revisions ${revisions.join(', ')}`);
        break;
      }
      if (time.monotonic() > end) {
        findings.add('liveness', `members do not come to the same index: ${indexes.join(', ')}`);
        break;
      }
      await this.#world.sleep(100);
    }
    this.settledRevision = revision;
    for (const member of members) {
      const error = await this.#sampleHash(member, revision);
      if (error !== undefined) findings.add('equal-hashes', `${member.name} gave no hash at revision ${revision}: ${error}`);
    }
  }

  /** What the members' logs hold on disk agrees with what was committed. */
  async compareLogs(): Promise<void> {
    for (const member of this.#world.members) {
      const disk = member.disk.fork().mount();
      const names = await disk.list('/data');
      if (!names.includes('wal')) continue;
      const index = member.state.committed.get('meta', durableIndexKey);
      const durable = index === undefined ? 0 : Number(Buffer.from(index).readBigUInt64BE());
      const { replay } = await surveyLog(disk, '/data/wal', durable);
      this.#world.raft.log(replay.entries, member.name);
    }
  }

  judge(history: History): void {
    const { findings } = this.#world;
    findings.addAll(checkHashes(this.#hashes));
    const { settledRevision } = this;
    const isAutomatic = this.#world.plan.settings.autoCompactionRetention > 0;
    findings.addAll(checkHistory(history, { isAutomatic, ...(settledRevision !== undefined && { settledRevision }) }));
    this.#checkClaims(history);
  }

  /** The SDK told its callers what the wire told it. */
  #checkClaims(history: History): void {
    const { findings, claims } = this.#world;
    const applied = new Map<string, number>();
    for (const { request, outcome } of history.operations) {
      if (outcome.status === 'ok') for (const value of valuesOf(request)) applied.set(value, outcome.revision);
    }
    for (const { value, client, says, revision } of claims) {
      const at = applied.get(value);
      if (says === 'not-applied' && at !== undefined)
        findings.add('sdk-truth', `${client} was told that ${value} was not written, and it was, at revision ${at}`);
      if (says === 'applied' && at !== revision)
        findings.add('sdk-truth', `${client} was told that ${value} was written at revision ${revision}; the server said ${at}`);
    }
  }
}

function valuesOf(request: Operation['request']): string[] {
  if (request.type === 'put') return [request.value];
  if (request.type !== 'txn') return [];
  const all: readonly TxnOperation[] = [...request.success, ...request.failure];
  return all.flatMap(valuesOf);
}
