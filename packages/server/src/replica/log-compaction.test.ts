import { describe, expect, it } from 'vitest';
import { LogCompaction } from './log-compaction.ts';

/** A raft that has applied 100 entries of 10 bytes each. */
function world(options: { readonly hasPeers?: boolean; readonly catchUpBytes?: number } = {}) {
  const { hasPeers = true, catchUpBytes = 1000 } = options;
  const did: string[] = [];
  const raft = {
    appliedIndex: 100,
    catchUpIndex: (entries: number, bytes: number) => 100 - Math.min(entries, bytes / 10),
    compact: (index: number) => void did.push(`compact ${index}`),
  };
  const stateMachine = { durableIndex: 100 };
  const transfers = { neededIndex: undefined as number | undefined, giveUpBelow: (index: number) => void did.push(`give up ${index}`) };
  const log = { release: (index: number) => void did.push(`release ${index}`) };
  const compaction = new LogCompaction({ log, raft, stateMachine, transfers, hasPeers, catchUpEntries: 16, catchUpBytes });
  const apply = (count: number): string[] => {
    for (let at = 0; at < count; at++) compaction.applied(10);
    compaction.compact();
    return did.splice(0);
  };
  return { compaction, stateMachine, transfers, apply, did };
}

describe('entries in memory', () => {
  it('are kept for members that lag a little, in number', () => {
    expect(world().apply(2)).toEqual(['give up -300', 'compact 84']);
  });

  it('and in bytes', () => {
    expect(world({ catchUpBytes: 50 }).apply(2)).toEqual(['give up 80', 'compact 95']);
  });

  it('are forgotten now and then', () => {
    const { apply } = world();
    expect([apply(1), apply(1).length, apply(1)]).toEqual([[], 2, []]);
  });

  it('are kept as far as the state on disk does not have them', () => {
    const { apply, stateMachine } = world();
    stateMachine.durableIndex = 70;
    expect(apply(2)).toEqual(['give up -300', 'compact 70']);
  });

  it('are kept behind a snapshot that is on its way', () => {
    const { apply, transfers } = world();
    transfers.neededIndex = 60;
    expect(apply(2)).toEqual(['give up -300', 'compact 60']);
  });

  it('are not kept where there is nobody who could lag', () => {
    expect(world({ hasPeers: false }).apply(1)).toEqual(['compact 100']);
  });
});

it('entries on disk are kept until the state has them on its own', () => {
  const { compaction, stateMachine, did } = world();
  compaction.release();
  compaction.release();
  stateMachine.durableIndex = 120;
  compaction.release();
  expect(did).toEqual(['release 100', 'release 120']);
});
