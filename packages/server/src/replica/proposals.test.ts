import { VirtualRuntime } from '@conclave/testing';
import { describe, expect, it } from 'vitest';
import { decodeEntry } from '../apply/entry.ts';
import { Proposals } from './proposals.ts';

/** Proposals at a raft that takes everything, in the term it is told. */
function proposals() {
  const runtime = new VirtualRuntime();
  const waiting = new Proposals<string>({
    runtime,
    member: 1n,
    requestTimeoutMs: 7000,
    maxQueuedBytes: 1 << 20,
    timeoutKey: () => 'request-timeout',
  });
  const taken: Uint8Array[] = [];
  const raft = {
    term: 1,
    isLeader: false,
    propose: (data: Uint8Array) => {
      taken.push(data);
      return { status: 'forwarded', leader: 2n } as const;
    },
    proposeConfChange: () => ({ status: 'dropped', reason: 'noLeader' }) as const,
  };
  /** How a request ended: its result, or its error with what is said of its outcome. */
  const put = (): { said: string } => {
    const ending = { said: 'waits' };
    const request = { kind: 'put', body: new Uint8Array(3), user: '', authRevision: 0, deadline: Number.POSITIVE_INFINITY } as const;
    waiting.add(request).then(
      (result) => {
        ending.said = result;
      },
      (error: { message: string; trailers: Record<string, string> }) => {
        ending.said = `${error.message} (${error.trailers['conclave-outcome'] ?? 'unknown'})`;
      },
    );
    waiting.enter(raft, 1 << 20);
    return ending;
  };
  const apply = (at: number, term: number): void => {
    waiting.begins(term);
    waiting.applied(decodeEntry(taken[at]!), 'applied');
  };
  return { runtime, raft, put, apply, waiting };
}

it('is told in time that it took too long, also when what is urgent went before it', async () => {
  const { runtime, raft, waiting } = proposals();
  const request = { body: new Uint8Array(3), user: '', authRevision: 0, deadline: Number.POSITIVE_INFINITY } as const;
  const ending = { at: Number.NaN };
  const told = (): void => {
    ending.at = runtime.monotonic();
  };
  waiting.add({ ...request, kind: 'put' }).catch(told);
  waiting.enter({ ...raft, propose: () => ({ status: 'dropped', reason: 'noLeader' }) }, 1 << 20);
  await runtime.advance(6000);
  waiting.addUrgent({ ...request, kind: 'leaseRevoke' }, 1).catch(() => {});
  waiting.enter({ ...raft, isLeader: true }, 1 << 20);
  for (let tick = 0; tick < 20; tick++) {
    await runtime.advance(100);
    waiting.expire();
  }
  await runtime.advance(0);
  expect(ending.at).toBe(7000);
});

describe('a request that was proposed in an earlier term', () => {
  it('is lost for certain once an entry of a later term is applied, and not before', async () => {
    const { runtime, raft, put, apply, waiting } = proposals();
    const [first, lost] = [put(), put()];
    raft.term = 3;
    const later = put();
    apply(0, 1);
    await runtime.advance(0);
    expect([first.said, lost.said, later.said]).toEqual(['applied', 'waits', 'waits']);
    waiting.begins(2);
    await runtime.advance(0);
    expect([lost.said, later.said]).toEqual(['etcdserver: leader changed (not-applied)', 'waits']);
    apply(2, 3);
    await runtime.advance(0);
    expect(later.said).toBe('applied');
    expect(waiting.isIdle).toBe(true);
  });

  it('may stand in what a snapshot covers, and then nothing is known of it', async () => {
    const { runtime, put, waiting } = proposals();
    const covered = put();
    waiting.covered();
    waiting.begins(2);
    await runtime.advance(0);
    expect(covered.said).toBe('etcdserver: leader changed (unknown)');
  });
});

describe('requests on their way to the leader', () => {
  it('are held back while many are, and go on as those are answered', async () => {
    const { runtime, raft, waiting } = proposals();
    let count = 0;
    const propose = raft.propose;
    raft.propose = (data) => {
      count += 1;
      return propose(data);
    };
    const body = new Uint8Array(100_000);
    for (let at = 0; at < 10; at++) {
      waiting.add({ kind: 'put', body, user: '', authRevision: 0, deadline: Number.POSITIVE_INFINITY }).catch(() => undefined);
    }
    expect([waiting.enter(raft, 1 << 30), count, waiting.mayEnter]).toEqual([false, 2, false]);
    waiting.begins(2);
    expect(waiting.mayEnter).toBe(true);
    raft.term = 2;
    waiting.enter(raft, 1 << 30);
    expect(count).toBe(4);
    // A leader asks nobody: raft says how much it takes.
    raft.isLeader = true;
    waiting.enter(raft, 1 << 30);
    expect(count).toBe(10);
    await runtime.advance(0);
  });
});

it('what is decided in one term does not enter the log in another', async () => {
  const { runtime, raft, waiting } = proposals();
  const revoke = { kind: 'leaseRevoke', body: new Uint8Array(3), user: '', authRevision: 0, deadline: Number.POSITIVE_INFINITY } as const;
  const endings: string[] = [];
  for (const term of [1, 2]) {
    waiting.addUrgent(revoke, term).then(
      () => endings.push('applied'),
      (error: Error) => endings.push(error.message),
    );
  }
  raft.term = 2;
  waiting.enter(raft, 1 << 20);
  await runtime.advance(0);
  expect(endings).toEqual(['etcdserver: leader changed']);
  expect(waiting.isIdle).toBe(false);
});
