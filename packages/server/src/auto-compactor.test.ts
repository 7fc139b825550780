import { CompactionRequest } from '@conclave/protocol';
import { VirtualRuntime } from '@conclave/testing';
import { describe, expect, it } from 'vitest';
import type { Applied } from './apply/apply.ts';
import { AutoCompactor } from './auto-compactor.ts';

const minute = 60_000;
const hour = 60 * minute;

/** A store that grows by a revision a minute, on a leader unless said otherwise. */
function running(autoCompactionMode: 'periodic' | 'revision', autoCompactionRetention: number) {
  const runtime = new VirtualRuntime();
  const compacted: { readonly at: number; readonly revision: number }[] = [];
  const world = { isLeader: true, failures: 0, compactRevision: -1 };
  const mvcc = {
    get revision() {
      return 1 + Math.floor(runtime.monotonic() / minute);
    },
    get compactRevision() {
      return world.compactRevision;
    },
  };
  const replica = {
    get isLeader() {
      return world.isLeader;
    },
    propose(_kind: 'compaction', body: Uint8Array): Promise<Applied> {
      if (world.failures-- > 0) return Promise.reject(new Error('etcdserver: request timed out'));
      const { revision } = CompactionRequest.decode(body);
      world.compactRevision = revision;
      compacted.push({ at: runtime.monotonic() / minute, revision });
      return Promise.resolve({ kind: 'compaction', response: { header: undefined } });
    },
  };
  const compactor = new AutoCompactor({ runtime, settings: { autoCompactionMode, autoCompactionRetention }, mvcc, replica });
  return { runtime, compacted, world, compactor };
}

describe('AutoCompactor', () => {
  it('keeps the newest revisions, looking every five minutes', async () => {
    const { runtime, compacted } = running('revision', 12);
    await runtime.advance(21 * minute);
    // Revision 16 at 15 minutes, 21 at 20.
    expect(compacted).toEqual([
      { at: 15, revision: 4 },
      { at: 20, revision: 9 },
    ]);
  });

  it('keeps the last hours, compacting every hour', async () => {
    const { runtime, compacted } = running('periodic', 2 * hour);
    await runtime.advance(4 * hour + minute);
    // At 2:06 the revision of 0:06, and so on.
    expect(compacted.map(({ at, revision }) => [at, at - revision])).toEqual([
      [126, 119],
      [186, 119],
    ]);
  });

  it('keeps less than an hour, compacting as often', async () => {
    const { runtime, compacted } = running('periodic', 10 * minute);
    await runtime.advance(32 * minute);
    expect(compacted.map(({ at, revision }) => [at, at - revision])).toEqual([
      [11, 9],
      [21, 9],
      [31, 9],
    ]);
  });

  it('leaves it to the leader, and knows what to keep when it becomes one', async () => {
    const { runtime, compacted, world } = running('periodic', 10 * minute);
    world.isLeader = false;
    await runtime.advance(30.5 * minute);
    expect(compacted).toEqual([]);
    world.isLeader = true;
    await runtime.advance(minute);
    expect(compacted).toEqual([{ at: 31, revision: 22 }]);
  });

  it('tries again soon when it fails', async () => {
    const { runtime, compacted, world } = running('periodic', 10 * minute);
    world.failures = 2;
    await runtime.advance(14 * minute);
    expect(compacted.map(({ at }) => at)).toEqual([13]);
  });

  it('does nothing without a retention, and nothing once stopped', async () => {
    const never = running('periodic', 0);
    await never.runtime.advance(10 * hour);
    const stopped = running('revision', 1);
    stopped.compactor.stop();
    await stopped.runtime.advance(10 * hour);
    expect([never.compacted, stopped.compacted]).toEqual([[], []]);
  });
});
