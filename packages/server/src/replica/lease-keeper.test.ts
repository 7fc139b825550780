import { VirtualRuntime } from '@conclave/testing';
import { describe, expect, it, vi } from 'vitest';
import { DeadlineHeap } from './deadline-heap.ts';
import { LeaseKeeper, minLeaseTtlSeconds } from './lease-keeper.ts';
import type { LeaseListener, LeaseTable } from './ports.ts';

class Table implements LeaseTable {
  readonly leases: Map<bigint, number> = new Map();
  #listener: LeaseListener | undefined;

  forEach(visit: (id: bigint, ttlSeconds: number) => void): void {
    for (const [id, ttl] of this.leases) visit(id, ttl);
  }
  listen(listener: LeaseListener): void {
    this.#listener = listener;
  }
  grant(id: bigint, ttl: number): void {
    this.leases.set(id, ttl);
    this.#listener?.granted(id, ttl);
  }
  revoke(id: bigint): void {
    if (this.leases.delete(id)) this.#listener?.revoked(id);
  }
}

interface World {
  readonly runtime: VirtualRuntime;
  readonly table: Table;
  readonly keeper: LeaseKeeper;
  /** When each revoke was begun. */
  readonly begun: { id: bigint; at: number }[];
  /** The terms they were begun for. */
  readonly terms: number[];
  /** Lets the revokes under way through; `fail` ends them without effect. */
  settle(fail?: 'fail'): Promise<void>;
  /** Revokes take this long; undefined: until `settle`. */
  takesMs: number | undefined;
  leads: boolean;
}

function world(): World {
  const runtime = new VirtualRuntime();
  const table = new Table();
  const open: { id: bigint; resolve: () => void; reject: (error: Error) => void }[] = [];
  const revoke = (id: bigint, term: number): Promise<void> => {
    it.begun.push({ id, at: runtime.monotonic() });
    it.terms.push(term);
    return new Promise((resolve, reject) => {
      if (it.takesMs === undefined) open.push({ id, resolve, reject });
      else
        runtime.timer(it.takesMs, () => {
          table.revoke(id);
          resolve();
        });
    });
  };
  const confirmLeadership = (): Promise<void> => (it.leads ? Promise.resolve() : Promise.reject(new Error('deposed')));
  const it: World = {
    runtime,
    table,
    keeper: new LeaseKeeper({ runtime, table, revoke, confirmLeadership, electionTimeoutMs: 1000 }),
    begun: [],
    terms: [],
    takesMs: 0,
    leads: true,
    async settle(fail) {
      for (const { id, resolve, reject } of open.splice(0)) {
        if (fail) {
          reject(new Error('request timed out'));
          continue;
        }
        table.revoke(id);
        resolve();
      }
      await runtime.advance(0);
    },
  };
  return it;
}

function watched(promise: Promise<number>): { state: number | string } {
  const box: { state: number | string } = { state: 'pending' };
  promise.then(
    (value) => {
      box.state = value;
    },
    (error: unknown) => {
      box.state = (error as Error).message;
    },
  );
  return box;
}

describe('the least TTL', () => {
  it.each([
    [1000, 2],
    [500, 1],
    [100, 1],
    [2000, 3],
    [50_000, 75],
  ])('for an election timeout of %d ms is %d s', (electionTimeoutMs, ttl) => {
    expect(minLeaseTtlSeconds(electionTimeoutMs)).toBe(ttl);
  });
});

describe('a countdown', () => {
  it('ends with one revoke, when the TTL has passed and not before', async () => {
    const { runtime, table, keeper, begun } = world();
    keeper.promote(1);
    table.grant(1n, 10);
    await runtime.advance(9999);
    expect([begun, keeper.remainingSeconds(1n)]).toEqual([[], 0]);
    await runtime.advance(1);
    expect(begun).toEqual([{ id: 1n, at: 10_000 }]);
    await runtime.advance(60_000);
    expect([begun.length, keeper.remainingSeconds(1n)]).toEqual([1, undefined]);
  });

  it('ends in the term in which it was counted, whatever the term is by then', async () => {
    const { runtime, table, keeper, terms } = world();
    keeper.promote(3);
    table.grant(7n, 10);
    await runtime.advance(10_000);
    keeper.promote(5);
    table.grant(8n, 10);
    await runtime.advance(10_000);
    expect(terms).toEqual([3, 5]);
  });

  it('is not kept by a member that does not lead', async () => {
    const { runtime, table, keeper, begun } = world();
    table.grant(1n, 10);
    await runtime.advance(60_000);
    expect([begun, keeper.remainingSeconds(1n), runtime.pendingTimers]).toEqual([[], undefined, 0]);
  });

  it('starts anew with an election timeout on top when the member begins to lead', async () => {
    const { runtime, table, keeper, begun } = world();
    keeper.promote(1);
    table.grant(1n, 10);
    await runtime.advance(9000);
    keeper.demote();
    await runtime.advance(9000);
    keeper.promote(1);
    expect(keeper.remainingSeconds(1n)).toBe(11);
    await runtime.advance(11_000);
    expect(begun).toEqual([{ id: 1n, at: 29_000 }]);
  });

  it('starts anew spread, where so many would end at once that they could not be revoked in time', async () => {
    const { runtime, table, keeper, begun } = world();
    for (let id = 1n; id <= 3000n; id++) table.leases.set(id, id % 3n === 0n ? 7 : 5);
    keeper.promote(1);
    await runtime.advance(5999);
    expect(begun).toEqual([]);
    await runtime.advance(10_000);
    expect(begun).toHaveLength(3000);
    const inSecond = (second: number): number => begun.filter(({ at }) => Math.floor(at / 1000) === second).length;
    const most = Math.max(...Array.from({ length: 20 }, (_, second) => inSecond(second)));
    expect(most).toBeGreaterThan(700);
    expect(most).toBeLessThan(800);
    // None before its time, and those with the shorter TTL first.
    expect(begun.findIndex(({ id }) => id % 3n === 0n)).toBeGreaterThanOrEqual(2000);
  });

  it('starts anew for each on its own where there are not so many', async () => {
    const { runtime, table, keeper, begun } = world();
    for (let id = 1n; id <= 100n; id++) table.leases.set(id, 5);
    keeper.promote(1);
    await runtime.advance(6200);
    expect(begun).toHaveLength(100);
  });

  it('is dropped when a client revokes the lease, and the id may be granted again', async () => {
    const { runtime, table, keeper, begun } = world();
    keeper.promote(1);
    table.grant(1n, 10);
    table.revoke(1n);
    await runtime.advance(5000);
    table.grant(1n, 20);
    await runtime.advance(19_000);
    expect([begun, keeper.remainingSeconds(1n)]).toEqual([[], 1]);
    await runtime.advance(1000);
    expect(begun).toEqual([{ id: 1n, at: 25_000 }]);
  });

  it('may be longer than the longest timer', async () => {
    const { runtime, table, keeper, begun } = world();
    keeper.promote(1);
    table.grant(1n, 9_000_000_000);
    await runtime.advance(2 ** 31);
    expect([begun, keeper.remainingSeconds(1n)]).toEqual([[], 9_000_000_000 - Math.ceil(2 ** 31 / 1000)]);
  });
});

describe('a renewal', () => {
  it('gives the TTL and starts it anew', async () => {
    const { runtime, table, keeper, begun } = world();
    keeper.promote(1);
    table.grant(1n, 10);
    await runtime.advance(6000);
    expect(await runtime.run(keeper.renew(1n))).toBe(10);
    await runtime.advance(9000);
    expect(begun).toEqual([]);
    await runtime.advance(1000);
    expect(begun).toEqual([{ id: 1n, at: 16_000 }]);
  });

  it('of an unknown lease gives 0', async () => {
    const { runtime, keeper } = world();
    keeper.promote(1);
    expect(await runtime.run(keeper.renew(1n))).toBe(0);
  });

  it('of an expired lease waits until it is revoked, then gives 0', async () => {
    const it = world();
    it.takesMs = undefined;
    it.keeper.promote(1);
    it.table.grant(1n, 10);
    await it.runtime.advance(10_000);
    const late = watched(it.keeper.renew(1n));
    await it.runtime.advance(500);
    expect(late.state).toBe('pending');
    await it.settle();
    expect(late.state).toBe(0);
  });

  it('is refused where leadership cannot be confirmed, and changes nothing', async () => {
    const it = world();
    it.keeper.promote(1);
    it.table.grant(1n, 10);
    await it.runtime.advance(6000);
    it.leads = false;
    const renewal = watched(it.keeper.renew(1n));
    await it.runtime.advance(0);
    expect([renewal.state, it.keeper.remainingSeconds(1n)]).toEqual(['deposed', 4]);
  });

  it('tells what is left and what was granted, until nothing is', async () => {
    const { runtime, table, keeper } = world();
    keeper.promote(1);
    table.grant(7n, 5);
    await runtime.advance(1500);
    expect(await keeper.remaining(7n)).toEqual({ remainingSeconds: 3, grantedSeconds: 5 });
    expect(await keeper.remaining(8n)).toBeUndefined();
    keeper.demote();
    await expect(keeper.remaining(7n)).rejects.toThrow('no leader');
  });

  it('is refused by a member that does not lead', async () => {
    const { runtime, keeper } = world();
    const renewal = watched(keeper.renew(1n));
    await runtime.advance(0);
    expect(renewal.state).toBe('etcdserver: no leader');
  });

  it('that waits for a revoke is refused when leadership ends, though the member leads again at once', async () => {
    const it = world();
    it.takesMs = undefined;
    it.keeper.promote(1);
    it.table.grant(1n, 10);
    await it.runtime.advance(10_000);
    const late = watched(it.keeper.renew(1n));
    await it.runtime.advance(0);
    it.keeper.promote(1);
    await it.runtime.advance(0);
    expect([late.state, it.keeper.remainingSeconds(1n)]).toEqual(['etcdserver: no leader', 11]);
  });
});

describe('revoking', () => {
  it('keeps at most 16 in flight and begins at most 1000 in a second', async () => {
    const it = world();
    it.takesMs = 3;
    it.keeper.promote(1);
    for (let id = 1n; id <= 5000n; id++) it.table.grant(id, 5);
    await it.runtime.advance(12_000);
    expect(it.table.leases.size).toBe(0);
    expect(new Set(it.begun.map(({ id }) => id)).size).toBe(5000);
    const inWindow = it.begun.map(({ at }) => it.begun.filter((other) => other.at >= at && other.at < at + 1000).length);
    expect(Math.max(...inWindow)).toBeLessThanOrEqual(1017);
    const inFlight = it.begun.map(({ at }) => it.begun.filter((other) => other.at > at - 3 && other.at <= at).length);
    expect(Math.max(...inFlight)).toBeLessThanOrEqual(16);
    const last = it.begun.at(-1)!;
    expect(last.at).toBeLessThan(10_100);
  });

  it('holds back beyond 16 while none comes through', async () => {
    const it = world();
    it.takesMs = undefined;
    it.keeper.promote(1);
    for (let id = 1n; id <= 40n; id++) it.table.grant(id, 5);
    await it.runtime.advance(20_000);
    expect(it.begun).toHaveLength(16);
    await it.settle();
    await it.runtime.advance(100);
    expect(it.begun).toHaveLength(32);
  });

  it('is repeated after a second when it failed', async () => {
    const it = world();
    it.takesMs = undefined;
    it.keeper.promote(1);
    it.table.grant(1n, 5);
    await it.runtime.advance(5000);
    await it.settle('fail');
    await it.runtime.advance(999);
    expect(it.begun).toHaveLength(1);
    await it.runtime.advance(1);
    await it.settle();
    await it.runtime.advance(10_000);
    expect(it.begun.map(({ at }) => at)).toEqual([5000, 6000]);
  });
});

it('does not keep countdowns of leases that were revoked long before their time', () => {
  const push = vi.spyOn(DeadlineHeap.prototype, 'push');
  const { keeper, table } = world();
  keeper.promote(1);
  for (let id = 1n; id <= 20_000n; id++) {
    table.grant(id, 86_400);
    if (id % 20n !== 0n) table.revoke(id);
  }
  const heap = push.mock.contexts[0] as DeadlineHeap<{ dueAt: number }>;
  push.mockRestore();
  expect(heap.size).toBeGreaterThanOrEqual(1000);
  expect(heap.size).toBeLessThan(3000);
});
