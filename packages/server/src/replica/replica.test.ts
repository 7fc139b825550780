import { LeaseGrantRequest, LeaseRevokeRequest } from '@conclave/protocol';
import type { ConfState, Entry, HardState, PeerMessage } from '@conclave/raft';
import { VirtualRuntime } from '@conclave/testing';
import { StatusError } from '@conclave/wire';
import { describe, expect, it } from 'vitest';
import { encodeEntry, type LoggedRequest } from '../apply/entry.ts';
import type { ReplicaOptions } from './options.ts';
import type { LeaseListener, LeaseTable, Log, LogBatch, PeerEvent, PeerPacket, Peers, RecoveredLog, StateMachine } from './ports.ts';
import { Replica } from './replica.ts';

const member = 0x8e9e05c52164694dn;

/** A log whose disk completes when the test says so, or (`inline`) at once. */
class FakeLog implements Log {
  readonly durable: Entry[] = [];
  hardState: HardState | undefined;
  readonly batches: LogBatch[] = [];
  readonly inFlight: { batch: LogBatch; done: () => void }[] = [];
  released = 0;
  isClosed = false;
  mode: 'manual' | 'inline' | 'lying' = 'manual';

  append(batch: LogBatch, durable: () => void): void {
    this.batches.push(batch);
    this.inFlight.push({ batch, done: durable });
    if (this.mode === 'inline') this.flush();
    // The planted fault: says that it is durable, and leaves it for the disk to do later.
    if (this.mode === 'lying') durable();
  }

  /** One flush for all that was appended. */
  flush(): void {
    for (const { batch, done } of this.inFlight.splice(0)) {
      const first = batch.entries[0]?.index ?? Number.POSITIVE_INFINITY;
      this.durable.splice(0, this.durable.length, ...this.durable.filter((entry) => entry.index < first), ...batch.entries);
      this.hardState = batch.hardState ?? this.hardState;
      done();
    }
  }

  release(index: number): void {
    this.released = index;
  }

  async close(): Promise<void> {
    this.flush();
    this.isClosed = true;
  }
}

/** Gives `kind#index`, and keeps leases for the keeper. */
class FakeMachine implements StateMachine<string>, LeaseTable {
  confState: ConfState = { voters: [member], learners: [] };
  applyMembership(): never {
    throw new Error('no membership here');
  }
  reload(): void {}
  appliedIndex = 0;
  appliedTerm = 0;
  durableIndex = 0;
  isFull = false;
  costMs = 0;
  readonly applied: string[] = [];
  /** Those whose result somebody waits for. */
  readonly awaited: string[] = [];
  readonly leases: Map<bigint, number> = new Map();
  #listener: LeaseListener | undefined;
  #onRoom: (() => void) | undefined;
  readonly #spend: (ms: number) => void;

  constructor(spend: (ms: number) => void) {
    this.#spend = spend;
  }

  apply(index: number, term: number, request: LoggedRequest, isAwaited: boolean): string {
    this.#begin(index, term);
    this.#spend(this.costMs);
    const name = Buffer.from(request.body).toString();
    if (isAwaited) this.awaited.push(name);
    this.applied.push(request.kind === 'put' ? name : request.kind);
    if (name === 'defect') throw new Error('the state machine is broken');
    if (request.kind === 'leaseGrant') this.#grant(LeaseGrantRequest.decode(request.body));
    if (request.kind === 'leaseRevoke') this.#revoke(LeaseRevokeRequest.decode(request.body).id);
    return `${request.kind}#${index}`;
  }

  applyEmpty(index: number, term: number): void {
    this.#begin(index, term);
    this.applied.push('');
  }

  #begin(index: number, term: number): void {
    expect(index).toBe(this.appliedIndex + 1);
    this.appliedIndex = index;
    this.appliedTerm = term;
  }

  #grant({ id, ttl }: LeaseGrantRequest): void {
    this.leases.set(id, ttl);
    this.#listener?.granted(id, ttl);
  }

  #revoke(id: bigint): void {
    if (this.leases.delete(id)) this.#listener?.revoked(id);
  }

  onRoom(listener: () => void): void {
    this.#onRoom = listener;
  }

  makeRoom(): void {
    this.isFull = false;
    this.#onRoom?.();
  }

  forEach(visit: (id: bigint, ttlSeconds: number) => void): void {
    for (const [id, ttl] of this.leases) visit(id, ttl);
  }

  listen(listener: LeaseListener): void {
    this.#listener = listener;
  }
}

/** Virtual time that a state machine can spend: the loop stands still meanwhile. */
class SpendingRuntime extends VirtualRuntime {
  #spent = 0;

  override monotonic(): number {
    return super.monotonic() + this.#spent;
  }

  readonly spend = (ms: number): void => {
    this.#spent += ms;
  };
}

interface World {
  readonly runtime: SpendingRuntime;
  readonly log: FakeLog;
  readonly machine: FakeMachine;
  readonly replica: Replica<string>;
  readonly failures: Error[];
}

function world(
  options: Partial<ReplicaOptions<string>> & {
    readonly mode?: FakeLog['mode'];
    readonly machineAt?: [number, number];
    readonly confState?: ConfState;
  } = {},
): World {
  const runtime = new SpendingRuntime({ seed: 11 });
  const log = new FakeLog();
  log.mode = options.mode ?? 'inline';
  const machine = new FakeMachine(runtime.spend);
  [machine.appliedIndex, machine.appliedTerm] = options.machineAt ?? [0, 0];
  machine.confState = options.confState ?? machine.confState;
  const failures: Error[] = [];
  const replica = new Replica<string>({
    runtime,
    id: member,
    log,
    recovered: { hardState: undefined, entries: [] },
    stateMachine: machine,
    leases: machine,
    fatal: (cause) => {
      failures.push(cause);
      throw cause;
    },
    ...options,
  });
  return { runtime, log, machine, replica, failures };
}

/** A started member that leads. */
async function leading(options: Parameters<typeof world>[0] = {}): Promise<World> {
  const it = world({ ...options, mode: 'inline' });
  it.replica.start();
  await it.runtime.advance(0);
  expect(it.replica.isLeader).toBe(true);
  it.log.mode = options.mode ?? 'inline';
  it.log.batches.length = 0;
  return it;
}

const body = (text: string): Uint8Array => new Uint8Array(Buffer.from(text));

/** How a promise ended, or 'pending'. */
function watched<T>(promise: Promise<T>): { state: T | StatusError | 'pending' } {
  const box: { state: T | StatusError | 'pending' } = { state: 'pending' };
  promise.then(
    (value) => {
      box.state = value;
    },
    (error: unknown) => {
      box.state = error as StatusError;
    },
  );
  return box;
}

function barrier(replica: Replica<string>): { state: StatusError | 'pending' | 'ok' } {
  const box: { state: StatusError | 'pending' | 'ok' } = { state: 'pending' };
  replica.readBarrier((error) => {
    box.state = error ?? 'ok';
  });
  return box;
}

const refused = (message: string, notApplied: boolean): unknown =>
  expect.objectContaining({ message: `etcdserver: ${message}`, trailers: notApplied ? { 'conclave-outcome': 'not-applied' } : {} });

describe('a single member', () => {
  it('leads at once, without waiting for an election timeout', async () => {
    const { replica, runtime, machine } = await leading();
    expect(runtime.monotonic()).toBe(0);
    expect(replica).toMatchObject({ term: 1, leader: member, role: 'leader', committedIndex: 1, appliedIndex: 1 });
    expect(machine.applied).toEqual(['']);
  });

  it('answers a proposal with what its own apply made of it', async () => {
    const { replica, runtime, machine } = await leading();
    expect(await runtime.run(replica.propose('put', body('a'), { user: 'root', authRevision: 3 }))).toBe('put#2');
    expect(machine.applied).toEqual(['', 'a']);
  });

  it('takes proposals that come before it leads, and applies them after', async () => {
    const { replica, runtime, log } = world({ mode: 'manual' });
    const early = replica.propose('put', body('early'));
    replica.start();
    const alsoEarly = replica.propose('put', body('also'));
    await runtime.advance(0);
    log.mode = 'inline';
    log.flush();
    expect(await runtime.run(Promise.all([early, alsoEarly]))).toEqual(['put#2', 'put#3']);
  });

  it('counts its vote only when the vote is on disk', async () => {
    const { replica, runtime, log } = world({ mode: 'manual' });
    replica.start();
    await runtime.advance(500);
    expect(log.batches).toEqual([{ entries: [], hardState: { term: 1, vote: member, commit: 0 } }]);
    expect(replica.role).toBe('candidate');
    log.flush();
    expect(replica.role).toBe('leader');
  });
});

describe('durability', () => {
  async function acknowledgedBeforeDurable(mode: 'manual' | 'lying'): Promise<boolean> {
    const { replica, runtime, log } = await leading({ mode });
    const put = watched(replica.propose('put', body('a')));
    await runtime.advance(50);
    const isDurable = log.durable.some((entry) => entry.index === 2);
    return put.state !== 'pending' && !isDurable;
  }

  it('acknowledges and applies nothing before it is on disk', async () => {
    const { replica, runtime, log, machine } = await leading({ mode: 'manual' });
    const put = watched(replica.propose('put', body('a')));
    await runtime.advance(1000);
    expect(log.batches).toHaveLength(1);
    expect([put.state, machine.applied, replica.committedIndex]).toEqual(['pending', [''], 1]);
    log.flush();
    await runtime.advance(0);
    expect([put.state, machine.applied, replica.committedIndex]).toEqual(['put#2', ['', 'a'], 2]);
    expect(await acknowledgedBeforeDurable('manual')).toBe(false);
  });

  it('is what that check looks at: a log that acknowledges before it writes is found out', async () => {
    expect(await acknowledgedBeforeDurable('lying')).toBe(true);
  });

  it('puts the concurrent proposals of a turn into one append, in their order', async () => {
    const { replica, runtime, log, machine } = await leading();
    const names = Array.from({ length: 100 }, (_, at) => `key${at}`);
    const results = await runtime.run(Promise.all(names.map((name) => replica.propose('put', body(name)))));
    expect(log.batches.map((batch) => batch.entries.length)).toEqual([100]);
    expect(results).toEqual(names.map((_, at) => `put#${at + 2}`));
    expect(machine.applied).toEqual(['', ...names]);
  });

  it('goes on appending while a flush is under way', async () => {
    const { replica, runtime, log } = await leading({ mode: 'manual' });
    const puts = [];
    for (const name of ['a', 'b', 'c']) {
      puts.push(watched(replica.propose('put', body(name))));
      await runtime.advance(1);
    }
    expect(log.inFlight.map(({ batch }) => batch.entries.length)).toEqual([1, 1, 1]);
    log.flush();
    await runtime.advance(0);
    expect(puts.map((put) => put.state)).toEqual(['put#2', 'put#3', 'put#4']);
  });

  it('writes term, vote and commit in one record with the entries, and never for a commit alone', async () => {
    const { replica, runtime, log } = await leading();
    await runtime.run(replica.propose('put', body('a')));
    await runtime.advance(5000);
    expect(log.batches).toHaveLength(1);
    expect(log.batches[0]?.hardState).toEqual({ term: 1, vote: member, commit: 1 });
  });

  it('lets the log go once the state machine has its entries on disk', async () => {
    const { replica, runtime, log, machine } = await leading();
    await runtime.run(replica.propose('put', body('a')));
    await runtime.advance(200);
    expect(log.released).toBe(0);
    machine.durableIndex = 2;
    await runtime.advance(200);
    expect(log.released).toBe(2);
  });
});

describe('a restart', () => {
  const put = (index: number, term: number, name: string): Entry => ({
    index,
    term,
    type: 'normal',
    data: encodeEntry({ kind: 'put', member, epoch: 1, counter: index, term, user: '', authRevision: 0, body: body(name) }),
  });
  const recovered: RecoveredLog = {
    hardState: { term: 3, vote: member, commit: 4 },
    entries: [put(4, 2, 'x'), put(5, 2, 'y'), put(6, 3, 'z')],
  };

  it('applies what the log has and the state machine has not, then its own entry', async () => {
    const { replica, machine } = await leading({ recovered, machineAt: [4, 2] });
    expect(machine.applied).toEqual(['y', 'z', '']);
    expect(replica).toMatchObject({ term: 4, committedIndex: 7, appliedIndex: 7 });
  });

  it('goes on where the state machine knows more than the recorded commit', async () => {
    const { machine } = await leading({ recovered, machineAt: [6, 3] });
    expect(machine.applied).toEqual(['']);
  });

  it('answers nobody with the entries of an earlier life', async () => {
    const { replica, runtime, machine } = world({
      recovered: { hardState: { term: 1, vote: member, commit: 0 }, entries: [put(1, 1, 'old')] },
    });
    const young = replica.propose('put', body('young'));
    replica.start();
    expect(await runtime.run(young)).toBe('put#3');
    expect(machine.applied).toEqual(['old', '', 'young']);
    expect(machine.awaited).toEqual(['young']);
  });

  it.each<[string, RecoveredLog, [number, number]]>([
    ['is missing', { hardState: undefined, entries: [] }, [4, 2]],
    ['is of an earlier term', { ...recovered, hardState: { term: 1, vote: member, commit: 0 } }, [4, 2]],
    ['begins too late', recovered, [2, 2]],
    ['ends too early', recovered, [7, 3]],
    ['has another entry where the state machine is', recovered, [6, 2]],
    ['has lost committed entries', { hardState: { term: 3, vote: member, commit: 9 }, entries: recovered.entries }, [6, 3]],
  ])('is refused when the log %s', (_, log, machineAt) => {
    expect(() => world({ recovered: log, machineAt })).toThrow(/^raft: /);
  });
});

describe('a proposal is refused', () => {
  it('when it is too large', async () => {
    const { replica, runtime, log } = await leading({ limits: { maxRequestBytes: 10 } });
    await runtime.run(replica.propose('put', new Uint8Array(10).fill(65)));
    await expect(replica.propose('put', new Uint8Array(11))).rejects.toEqual(refused('request is too large', false));
    expect(log.batches).toHaveLength(1);
  });

  it('while too many committed entries wait to be applied', async () => {
    const { replica, runtime, machine } = await leading({ limits: { maxPendingGap: 3 } });
    machine.isFull = true;
    const waiting = ['a', 'b', 'c', 'd'].map((name) => replica.propose('put', body(name)));
    await runtime.advance(10);
    await expect(replica.propose('put', body('e'))).rejects.toEqual(refused('too many requests', false));
    machine.makeRoom();
    expect(await runtime.run(Promise.all(waiting))).toHaveLength(4);
    expect(await runtime.run(replica.propose('put', body('f')))).toBe('put#6');
  });

  it('when too much waits before the log', async () => {
    const { replica, runtime } = world({ limits: { maxUncommittedBytes: 1000 } });
    replica.start();
    const first = watched(replica.propose('put', new Uint8Array(700)));
    const second = watched(replica.propose('put', new Uint8Array(700)));
    await runtime.advance(0);
    expect(first.state).toBe('put#2');
    expect(second.state).toEqual(refused('too many requests', false));
  });

  it('with its outcome open, when its entry is not applied in time', async () => {
    const { replica, runtime, log, machine } = await leading({ mode: 'manual' });
    const put = watched(replica.propose('put', body('a')));
    await runtime.advance(6900);
    expect(put.state).toBe('pending');
    await runtime.advance(200);
    expect(put.state).toEqual(refused('request timed out', false));
    log.flush();
    await runtime.advance(0);
    expect(machine.applied).toEqual(['', 'a']);
  });

  it('for certain, when it never entered the log', async () => {
    const { replica, runtime } = world({ confState: { voters: [member, 2n, 3n], learners: [] }, mode: 'inline' });
    replica.start();
    const put = watched(replica.propose('put', body('a')));
    await runtime.advance(7100);
    expect(put.state).toEqual(refused('request timed out', true));
  });

  it('for certain, when its caller has gone before it could enter', async () => {
    const { replica, runtime, log } = world({ mode: 'manual' });
    replica.start();
    const put = watched(replica.propose('put', body('a'), { deadline: 50 }));
    await runtime.advance(100);
    log.mode = 'inline';
    log.flush();
    await runtime.advance(0);
    expect(put.state).toEqual(refused('request timed out', true));
    expect(log.durable.map((entry) => entry.data.length)).toEqual([0]);
  });

  it('and waits, while more bytes are uncommitted than may be, and is proposed once only', async () => {
    const { replica, runtime, log } = await leading({ mode: 'manual', limits: { maxUncommittedBytes: 1000 } });
    const puts = [];
    for (let round = 0; round < 3; round++) {
      puts.push(watched(replica.propose('put', new Uint8Array(400))));
      await runtime.advance(1);
    }
    await runtime.advance(500);
    expect(log.batches.flatMap((batch) => batch.entries)).toHaveLength(2);
    log.flush();
    log.flush();
    await runtime.advance(0);
    expect(puts.map((put) => put.state)).toEqual(['put#2', 'put#3', 'put#4']);
    expect(log.durable).toHaveLength(4);
  });
});

describe('linearizable reads', () => {
  it('go ahead at once and without the disk where the member leads alone', async () => {
    const { replica, log } = await leading({ mode: 'manual' });
    expect(barrier(replica).state).toBe('ok');
    expect(log.batches).toEqual([]);
  });

  it('wait for the first commit of the term', async () => {
    const { replica, runtime, log } = world({ mode: 'manual' });
    replica.start();
    const reads = [barrier(replica), barrier(replica)];
    await runtime.advance(100);
    log.flush();
    await runtime.advance(0);
    expect([replica.role, ...reads.map((read) => read.state)]).toEqual(['leader', 'pending', 'pending']);
    reads.push(barrier(replica));
    log.flush();
    await runtime.advance(0);
    expect(reads.map((read) => read.state)).toEqual(['ok', 'ok', 'ok']);
  });

  it('wait until what is committed is applied, and see it', async () => {
    const { replica, runtime, machine } = await leading();
    machine.isFull = true;
    const put = watched(replica.propose('put', body('a')));
    await runtime.advance(10);
    let seen: readonly string[] = [];
    replica.readBarrier(() => {
      seen = [...machine.applied];
    });
    expect(seen).toEqual([]);
    machine.makeRoom();
    await runtime.advance(0);
    expect([put.state, seen]).toEqual(['put#2', ['', 'a']]);
  });

  it('wait for all of what is committed, not only for some of it', async () => {
    const { replica, runtime, machine } = await leading();
    machine.costMs = 3;
    const puts = Promise.all(['a', 'b', 'c'].map((name) => replica.propose('put', body(name))));
    const seen: number[] = [];
    runtime.endOfTurn(() => {
      expect([replica.committedIndex, machine.appliedIndex]).toEqual([4, 2]);
      replica.readBarrier(() => seen.push(machine.appliedIndex));
    });
    await runtime.run(puts);
    expect(seen).toEqual([4]);
  });

  it('end in time when nothing is applied, or nobody leads', async () => {
    const { replica, runtime, machine } = await leading();
    machine.isFull = true;
    void watched(replica.propose('put', body('a')));
    await runtime.advance(10);
    const stuck = barrier(replica);
    const followers = world({ confState: { voters: [member, 2n, 3n], learners: [] } });
    followers.replica.start();
    const leaderless = barrier(followers.replica);
    await runtime.advance(7200);
    await followers.runtime.advance(7200);
    expect(stuck.state).toEqual(refused('request timed out, waiting for the applied index took too long', false));
    expect(leaderless.state).toEqual(refused('request timed out', false));
  });

  it('do not end the member when their callback throws', async () => {
    const { replica, runtime, machine, failures } = await leading();
    machine.isFull = true;
    const put = watched(replica.propose('put', body('a')));
    await runtime.advance(10);
    replica.readBarrier(() => {
      throw new Error('a defect of the reader');
    });
    machine.makeRoom();
    await runtime.advance(0);
    expect([put.state, failures]).toEqual(['put#2', []]);
  });
});

describe('applying', () => {
  it('gives the loop a turn every few milliseconds, and keeps the order', async () => {
    const { replica, runtime, machine } = await leading();
    machine.costMs = 1;
    const names = Array.from({ length: 20 }, (_, at) => `${at}`);
    const puts = names.map((name) => replica.propose('put', body(name)));
    const seenBetween: number[] = [machine.appliedIndex];
    const look = (): void => {
      seenBetween.push(machine.appliedIndex);
      if (machine.appliedIndex < 21) runtime.endOfTurn(look);
    };
    runtime.endOfTurn(look);
    await runtime.run(Promise.all(puts));
    expect(machine.applied).toEqual(['', ...names]);
    const steps = seenBetween.slice(1).map((index, at) => index - seenBetween[at]!);
    expect(Math.max(...steps)).toBeLessThanOrEqual(3);
  });

  it('waits while the state machine is full, and takes proposals meanwhile', async () => {
    const { replica, runtime, machine } = await leading();
    machine.isFull = true;
    const puts = ['a', 'b'].map((name) => watched(replica.propose('put', body(name))));
    await runtime.advance(3000);
    expect([replica.committedIndex, replica.appliedIndex]).toEqual([3, 1]);
    machine.makeRoom();
    await runtime.advance(0);
    expect(puts.map((put) => put.state)).toEqual(['put#2', 'put#3']);
  });
});

describe('a flood of large requests', () => {
  it('is written in pieces, and the loop has its turn between them', async () => {
    const { replica, runtime, log } = await leading();
    const append = log.append.bind(log);
    log.append = (batch, durable) => {
      runtime.spend(3);
      append(batch, durable);
    };
    const puts = Array.from({ length: 40 }, () => replica.propose('put', new Uint8Array(400_000)));
    const written: number[] = [];
    const look = (): void => {
      written.push(log.batches.length);
      if (replica.appliedIndex < 41) runtime.endOfTurn(look);
    };
    runtime.endOfTurn(look);
    await runtime.run(Promise.all(puts));
    expect(log.batches.map((batch) => batch.entries.length)).toEqual(Array.from({ length: 20 }, () => 2));
    expect(Math.max(...written.map((count, at) => count - (written[at - 1] ?? 0)))).toBe(1);
  });
});

describe('a member that cannot keep its promises', () => {
  it('fails once and answers nothing more when its state machine throws', async () => {
    const { replica, runtime, failures } = await leading();
    const puts = ['a', 'defect', 'b'].map((name) => watched(replica.propose('put', body(name))));
    await runtime.advance(10);
    expect(failures).toHaveLength(1);
    const stopped = refused('server stopped', false);
    expect(puts.slice(1).map((put) => put.state)).toEqual([stopped, stopped]);
    expect(barrier(replica).state).toEqual(stopped);
    await expect(replica.propose('put', body('c'))).rejects.toEqual(refused('server stopped', true));
  });

  it('fails when its log throws', async () => {
    const { replica, runtime, failures, log } = await leading();
    log.append = () => {
      throw new Error('write failed');
    };
    const put = watched(replica.propose('put', body('a')));
    await runtime.advance(10);
    expect(put.state).toEqual(refused('server stopped', false));
    expect(failures.map((failure) => failure.message)).toEqual(['write failed']);
  });

  it('halts on an entry that a newer version wrote', async () => {
    const data = new Uint8Array(48).fill(9);
    const recovered = { hardState: { term: 1, vote: member, commit: 1 }, entries: [{ index: 1, term: 1, type: 'normal' as const, data }] };
    const { replica, runtime, failures, machine } = world({ recovered });
    replica.start();
    await runtime.advance(10);
    expect(failures.map((failure) => failure.name)).toEqual(['EntryFormatError']);
    expect(machine.appliedIndex).toBe(0);
  });
});

describe('stopping', () => {
  it('refuses what is new, finishes what was taken in, then closes the log', async () => {
    const { replica, runtime, log } = await leading({ mode: 'manual' });
    const put = watched(replica.propose('put', body('a')));
    await runtime.advance(0);
    const stopped = watched(replica.stop());
    await expect(replica.propose('put', body('b'))).rejects.toEqual(refused('server stopped', true));
    await runtime.advance(100);
    expect([put.state, stopped.state, log.isClosed]).toEqual(['pending', 'pending', false]);
    log.flush();
    await runtime.advance(0);
    expect([put.state, stopped.state, log.isClosed]).toEqual(['put#2', undefined, true]);
  });

  it('tells who is left after the grace that the server stopped, and what never entered the log for certain', async () => {
    const { replica, runtime, log } = await leading({ mode: 'manual', limits: { maxUncommittedBytes: 1000 } });
    const entered = watched(replica.propose('put', new Uint8Array(700)));
    await runtime.advance(0);
    const queued = watched(replica.propose('put', new Uint8Array(700)));
    await runtime.advance(0);
    await runtime.run(replica.stop(200));
    expect(entered.state).toEqual(refused('server stopped', false));
    expect(queued.state).toEqual(refused('server stopped', true));
    expect(log.isClosed).toBe(true);
    expect(barrier(replica).state).toEqual(refused('server stopped', false));
    expect(runtime.pendingTimers).toBe(0);
  });

  it('may be asked for twice', async () => {
    const { replica, runtime } = await leading();
    await runtime.run(Promise.all([replica.stop(), replica.stop()]));
  });
});

describe('among peers', () => {
  class FakePeers implements Peers {
    readonly sent: PeerMessage[] = [];
    deliver: (message: PeerMessage) => void = () => {};

    send({ frames }: PeerPacket): void {
      this.sent.push(...frames.flatMap((frame) => (frame.kind === 'raft' ? [frame.message] : [])));
    }
    listen(listener: (event: PeerEvent) => void): void {
      this.deliver = (message) => {
        const { from, to } = message;
        const frames = [{ kind: 'raft', message } as const];
        listener({ kind: 'packet', packet: { from, to, incarnation: 1, durableIndex: 0, commitIndex: 0, frames } });
      };
    }
    setMembers(): void {}
    close(): Promise<void> {
      return Promise.resolve();
    }
    types(): string[] {
      return this.sent.splice(0).map(({ type }) => type);
    }
  }

  function following(): World & { readonly peers: FakePeers } {
    const peers = new FakePeers();
    const it = world({ peers, confState: { voters: [member, 2n, 3n], learners: [] }, mode: 'manual' });
    it.replica.start();
    return { ...it, peers };
  }

  const toMember = { from: 2n, to: member, term: 1 };
  it('a vote is sent once it is on disk, and an answer that rests on the same write not earlier', async () => {
    const { log, peers, runtime } = following();
    const request = {
      type: 'requestVote',
      ...toMember,
      lastLogIndex: 0,
      lastLogTerm: 0,
      leadershipTransfer: false,
      commitIndex: 0,
      commitTerm: 0,
    } as const;
    peers.deliver(request);
    peers.deliver(request);
    await runtime.advance(0);
    expect([log.batches.length, peers.types()]).toEqual([1, []]);
    log.flush();
    expect(peers.types()).toEqual(['requestVoteResponse', 'requestVoteResponse']);
    peers.deliver(request);
    await runtime.advance(0);
    expect([log.batches.length, peers.types()]).toEqual([1, ['requestVoteResponse']]);
  });

  it('a follower forwards a request once, and answers it by its own apply', async () => {
    const { replica, runtime, log, peers, machine } = following();
    peers.deliver({ type: 'heartbeat', ...toMember, leaderCommit: 0, round: 1 });
    const answer = watched(replica.propose('put', body('a')));
    await runtime.advance(0);
    const forwarded = peers.sent.filter((message) => message.type === 'propose');
    expect(forwarded).toHaveLength(1);
    const entry = { ...forwarded[0]!.entries[0]!, term: 1, index: 1 };
    peers.deliver({ type: 'appendEntries', ...toMember, prevLogIndex: 0, prevLogTerm: 0, entries: [entry], leaderCommit: 1 });
    await runtime.advance(0);
    log.flush();
    await runtime.advance(0);
    expect([answer.state, machine.applied]).toEqual(['put#1', ['a']]);
  });

  it('reads of one turn ask the leader once, and ask again in other words when no answer comes', async () => {
    const { replica, runtime, peers } = following();
    const reads = [barrier(replica)];
    peers.deliver({ type: 'heartbeat', ...toMember, leaderCommit: 0, round: 1 });
    reads.push(barrier(replica), barrier(replica));
    await runtime.advance(0);
    const asked = (): number[] => peers.sent.flatMap((message) => (message.type === 'readIndex' ? [message.sequence] : []));
    expect(asked()).toHaveLength(1);
    for (let round = 0; round < 7; round++) {
      await runtime.advance(100);
      peers.deliver({ type: 'heartbeat', ...toMember, leaderCommit: 0, round: 1 });
    }
    expect(asked()).toHaveLength(2);
    const late = barrier(replica);
    await runtime.advance(0);
    const sequences = asked();
    const answer = { type: 'readIndexResponse', ...toMember, incarnation: 1, index: 0 } as const;
    // It was on its way for longer than a question waits, and holds for what was asked before it. Of what came later it says nothing.
    peers.deliver({ ...answer, sequence: sequences[0]! });
    await runtime.advance(0);
    expect([...reads, late].map((read) => read.state)).toEqual(['ok', 'ok', 'ok', 'pending']);
    peers.deliver({ ...answer, sequence: sequences[1]! });
    await runtime.advance(0);
    expect(late.state).toBe('pending');
    peers.deliver({ ...answer, sequence: sequences[2]! });
    await runtime.advance(0);
    expect(late.state).toBe('ok');
  });
});

describe('leases', () => {
  const grant = (id: bigint, ttl: number): Uint8Array => LeaseGrantRequest.encode({ id, ttl });

  it('expire through the log', async () => {
    const { replica, runtime, machine } = await leading();
    await runtime.run(replica.propose('leaseGrant', grant(7n, 5)));
    await runtime.advance(4999);
    expect(machine.leases.size).toBe(1);
    await runtime.advance(2);
    expect(machine.leases.size).toBe(0);
    expect(machine.applied).toEqual(['', 'leaseGrant', 'leaseRevoke']);
  });

  it('live as long as they are renewed', async () => {
    const { replica, runtime, machine } = await leading();
    await runtime.run(replica.propose('leaseGrant', grant(7n, 5)));
    for (let round = 0; round < 10; round++) {
      await runtime.advance(4000);
      expect(await runtime.run(replica.leases.renew(7n))).toBe(5);
    }
    expect(replica.leases.remainingSeconds(7n)).toBe(5);
    await runtime.advance(5001);
    expect(machine.leases.size).toBe(0);
  });

  it('get their full time and an election timeout after a restart', async () => {
    const machineAt: [number, number] = [3, 1];
    const { machine, replica, runtime } = world({ machineAt, recovered: { hardState: { term: 1, vote: member, commit: 3 }, entries: [] } });
    machine.leases.set(7n, 5);
    replica.start();
    await runtime.advance(5999);
    expect(machine.leases.size).toBe(1);
    await runtime.advance(2);
    expect(machine.leases.size).toBe(0);
  });

  it('do not expire any more once the member is stopping', async () => {
    const { replica, runtime, machine, log } = await leading();
    await runtime.run(replica.propose('leaseGrant', grant(7n, 5)));
    log.mode = 'manual';
    void watched(replica.propose('put', body('a')));
    await runtime.advance(0);
    const stopped = watched(replica.stop(30_000));
    await runtime.advance(10_000);
    expect(machine.leases.size).toBe(1);
    log.flush();
    await runtime.advance(0);
    expect(stopped.state).toBeUndefined();
  });
});

describe('errors', () => {
  it('are StatusErrors, as the doors expect', async () => {
    const { replica } = await leading({ limits: { maxRequestBytes: 1 } });
    await expect(replica.propose('put', new Uint8Array(2))).rejects.toBeInstanceOf(StatusError);
  });
});
