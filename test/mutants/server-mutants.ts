import { type Edit, type Finder, type Mutant, simulated } from './mutant.ts';

const server = (file: string, find: string, replace: string): Edit => ({ file: `packages/server/src/${file}.ts`, find, replace });

const unit = (file: string, test?: string): Finder => ({
  file: `packages/server/src/${file}.test.ts`,
  ...(test !== undefined && { test }),
});

/** Bugs of a member around the core. */
export const serverMutants: readonly Mutant[] = [
  {
    name: 'read-not-waiting-for-apply',
    origin: 'thesis 6.4: a read is served before the state machine has got to its index',
    edits: [
      server(
        'replica/read-barriers',
        'for (const { waiters } of this.#asked.splice(0, answered)) this.#confirm(index, waiters);',
        'for (const { waiters } of this.#asked.splice(0, answered)) this.#finish(waiters, index < 0 ? refusal("request-timeout") : undefined);',
      ),
    ],
    finders: [simulated(40)],
  },
  {
    name: 'lease-revoke-of-an-older-term',
    origin: 'etcd #15247: a leader that was stuck ends leases that were renewed at the next one',
    edits: [server('apply/lease-changes', "  if (isOfEarlierTerm) throw failure('leader-changed');\n", '')],
    finders: [unit('apply/apply')],
  },
  {
    name: 'leases-not-extended-at-promotion',
    origin: 'etcd lessor: a new leader does not know when a lease was last renewed',
    edits: [
      server(
        'replica/lease-keeper',
        'const deadline = Math.max(begin + ttlSeconds * 1000, earliest);',
        'const deadline = Math.max(begin, earliest);',
      ),
    ],
    finders: [simulated(40)],
  },
  {
    name: 'lease-renewed-by-deposed-leader',
    origin: 'etcd PR 20615: a renewal succeeds at a leader that is none any more',
    edits: [
      server(
        'replica/lease-keeper',
        'async renew(id: bigint): Promise<number> {\n    await this.#options.confirmLeadership();',
        'async renew(id: bigint): Promise<number> {',
      ),
    ],
    finders: [unit('replica/lease-keeper')],
  },
  {
    name: 'expired-lease-renewed',
    origin: 'etcd PR 20615: a renewal of a lease that is being revoked succeeds',
    edits: [server('replica/lease-keeper', '    if (countdown.deadline <= now) return this.#afterRevoke(countdown);\n', '')],
    finders: [unit('replica/lease-keeper')],
  },
  {
    name: 'applied-index-in-its-own-commit',
    origin: 'etcd #13766: the consistent index is saved outside of the transaction that it belongs to',
    edits: [
      server(
        'storage/backend/buffered-store',
        'this.#backend.commit({ rows: generation.changes(index) }).then(',
        "this.#backend.commit({ rows: [{ table: 'meta', key: durableIndexKey, value: encodeIndex(index) }] }).then(() => this.#backend.commit({ rows: generation.changes(index) })).then(",
      ),
    ],
    finders: [simulated(40)],
  },
  {
    name: 'watch-resent-after-snapshot',
    origin: 'etcd #15271: a snapshot takes watches back in time',
    edits: [server('mvcc/watch/watch-hub', '      watcher.next = Math.max(watcher.next, before + 1);\n', '      void before;\n')],
    finders: [simulated(60)],
  },
  {
    name: 'watch-misses-what-a-snapshot-brings',
    origin: 'etcd #15271: what a snapshot skipped is never told',
    edits: [
      server(
        'mvcc/watch/watch-hub',
        '      watcher.next = Math.max(watcher.next, before + 1);\n      this.#add(watcher);',
        '      watcher.next = Math.max(watcher.next, before + 1);\n      this.#join(watcher);',
      ),
    ],
    finders: [simulated(60)],
  },
  {
    name: 'progress-before-events',
    origin: 'etcd #15220: progress is told to a watch that still reads history',
    edits: [
      server(
        'mvcc/watch/watch-stream',
        "return watcher.state === 'live' && watcher.next <= revision + 1;",
        'return watcher.next <= revision + 1;',
      ),
    ],
    finders: [unit('mvcc/watch/watch-hub')],
  },
  {
    name: 'future-watch-gets-old-events',
    origin: 'etcd #20221: a watch from a future revision is told of earlier ones',
    edits: [
      server(
        'mvcc/watch/delivery',
        'if (!delivery.accepts(watcher) || watcher.next > last) continue;',
        'if (!delivery.accepts(watcher)) continue;',
      ),
      server('mvcc/watch/delivery', 'if (watcher.next <= first) {', 'if (watcher.next <= first || watcher.next > last) {'),
    ],
    finders: [unit('mvcc/watch/watch-hub')],
  },
  {
    name: 'compaction-drops-the-deletion-at-its-revision',
    origin: 'etcd #19179, #18089: a watch that begins at the compacted revision misses the deletion there',
    edits: [
      server(
        'mvcc/compaction',
        'if (main === target || (isLastOfRevision && version > 0)) return;',
        'if ((main === target && version > 0) || (isLastOfRevision && version > 0)) return;',
      ),
    ],
    finders: [simulated(40)],
  },
  {
    name: 'check-that-differs-between-members',
    origin: 'etcd #18667: a request fails on one member and is done on another',
    edits: [
      server('apply/apply', 'this.#put(PutRequest.decode(body)) };', 'this.#put(PutRequest.decode(body), isAwaited) };'),
      server(
        'apply/apply',
        '#put(request: PutRequest): PutResponse {\n    this.#checkLease(request);',
        '#put(request: PutRequest, isAwaited: boolean): PutResponse {\n    if (isAwaited) this.#checkLease(request);',
      ),
    ],
    finders: [simulated(40)],
  },
  {
    name: 'torn-and-rotten-are-one',
    origin: 'CTRL (FAST 2018): damage behind which durable records stand is cut off like a torn write',
    edits: [server('storage/wal/recovery', '  await refuseLaterBatches(segments, newest, end, replay.index + 1);\n', '')],
    finders: [unit('storage/wal/crash')],
  },
  {
    name: 'last-batch-cut-with-the-tear',
    origin: 'etcd #14098 class: repair takes more than what was torn',
    edits: [server('storage/wal/recovery', 'start: lastBatch.start, tail: lastBatch.records };', 'start: lastBatch.start, tail: [] };')],
    finders: [unit('storage/wal/crash'), simulated(40)],
  },
  {
    name: 'failed-write-goes-unnoticed',
    origin: 'fsyncgate (ATC 2020): after a failed flush the next one succeeds',
    edits: [
      server(
        'storage/wal/wal',
        '      if (error !== undefined) {\n        this.#fail(error);\n        return;\n      }\n',
        '      if (error !== undefined) this.#state.runtime.log.warn({ error }, "again");\n',
      ),
    ],
    finders: [unit('storage/wal/wal')],
  },
  {
    name: 'covered-proposal-called-not-applied',
    origin: 'etcd #18424 class: a write that may be part of a snapshot is called not done',
    edits: [
      server(
        'replica/proposals',
        "proposal.reject(proposal.isCovered ? refusal('leader-changed') : refusalBeforeLog('leader-changed'));",
        "proposal.reject(refusalBeforeLog('leader-changed'));",
      ),
    ],
    finders: [unit('replica/proposals')],
  },
  {
    name: 'member-with-an-older-disk-welcome',
    origin: 'reliability: a member that comes back with less than it had promised is counted on',
    edits: [
      server('replica/peer-guard', '    this.#refuse(from, peer, incarnation, durableIndex);\n    return false;', '    return true;'),
    ],
    finders: [unit('replica/peer-guard')],
  },
  {
    name: 'removed-member-comes-back',
    origin: 'etcd #20967: an id is used again',
    edits: [server('apply/member-changes', "  if (members.isRemoved(member.id)) throw failure('member-not-found');\n", '')],
    finders: [unit('apply/member-changes')],
  },
  {
    name: 'update-promotes-a-learner',
    origin: 'etcd PR 21736',
    edits: [server('apply/member-changes', 'members.change(id, { peerUrls });', 'members.change(id, { peerUrls, isLearner: false });')],
    finders: [unit('apply/member-changes')],
  },
];
