import {
  AlarmRequest_AlarmAction as AlarmAction,
  AlarmType,
  Cluster,
  findWireError,
  type Init,
  KV,
  Maintenance,
  type Member as MemberEntry,
  type MethodDescriptor,
  type StatusResponse,
  Watch,
  WatchRequest,
  WatchResponse,
  type WireErrorKey,
} from '@conclave/protocol';
import { Machine } from '@conclave/testing/simulation';
import { recordingTransport } from '@conclave/testkit';
import type { Connection, Transport } from '@conclave/wire';
import type { Member } from './member.ts';
import type { World } from './world.ts';

/** How a call ended: with an answer, or with the key of an error. */
export type Answer<T> = { readonly ok: T } | { readonly error: WireErrorKey | string };

/** The operator's machine, which nothing happens to: single calls to single members. */
export class Admin {
  readonly #world: World;
  readonly #machine: Machine;
  readonly #transport: Transport;
  readonly #connections = new Map<string, Connection>();

  constructor(world: World) {
    const { calls, recorder, time } = world;
    this.#world = world;
    this.#machine = new Machine(time, { name: 'admin', quantumMs: 1 });
    this.#machine.boot();
    this.#transport = recordingTransport(calls.transportOf(this.#machine), { recorder, client: 0, now: () => time.monotonic() });
  }

  call<In extends object, Out extends object>(
    member: Member,
    method: MethodDescriptor<In, Out, false, false>,
    request: Init<In>,
    timeoutMs = 3_000,
  ): Promise<Answer<Out>> {
    const connection = this.#connection(member);
    const deadline = this.#world.time.monotonic() + timeoutMs;
    return new Promise((resolve) => {
      connection.unary(method.path, method.input.encode(request as never), { deadline }, (end, response) => {
        if (response !== undefined) resolve({ ok: method.output.decode(response) });
        else resolve({ error: findWireError(end.code, end.message)?.key ?? `${end.code} ${end.message}` });
      });
    });
  }

  /** Asks one member after the other until one answers, or gives up at `deadline` of simulated time. */
  async persist<T>(deadline: number, ask: (member: Member) => Promise<Answer<T>>): Promise<Answer<T>> {
    const { world } = this;
    let last: Answer<T> = { error: 'nobody is there' };
    for (let attempt = 0; world.time.monotonic() < deadline; attempt++) {
      const up = world.members.filter((member) => member.server !== undefined);
      const member = up[attempt % Math.max(1, up.length)];
      if (member !== undefined) {
        last = await ask(member);
        if ('ok' in last) return last;
      }
      await world.sleep(200);
    }
    return last;
  }

  async memberList(deadline: number): Promise<readonly MemberEntry[] | undefined> {
    const answer = await this.persist(deadline, (member) => this.call(member, Cluster.methods.memberList, { linearizable: true }));
    return 'ok' in answer ? answer.ok.members : undefined;
  }

  /**
   * Watches everything at this member for as long as the run lasts. Compaction takes history away from clients that were cut off; what no answer accounts
   * for is then known from here.
   */
  observe(member: Member, startRevision = 1): void {
    const { world } = this;
    let next = startRevision;
    const again = (ms: number): void => void world.time.timer(ms, () => this.observe(member, next));
    if (!member.isUp) {
      again(100);
      return;
    }
    const stream = this.#connection(member).stream(
      Watch.methods.watch.path,
      {},
      {
        onMessage: (bytes) => {
          const { events, compactRevision, canceled } = WatchResponse.decode(bytes);
          const last = events.at(-1)?.kv;
          if (last !== undefined) next = last.modRevision + 1;
          if (compactRevision > 0) next = compactRevision;
          if (canceled) stream.cancel();
        },
        onEnd: () => again(100),
      },
    );
    stream.write(WatchRequest.encode({ createRequest: { key: Buffer.of(0), rangeEnd: Buffer.of(0), startRevision } }));
  }

  #connection(member: Member): Connection {
    const connection = this.#connections.get(member.name) ?? this.#transport(member.name);
    this.#connections.set(member.name, connection);
    return connection;
  }

  /** Makes room and takes the alarm back whenever a member is out of space. One of an older release cannot raise an alarm, and refuses all the same. */
  async keepSpace(): Promise<void> {
    const { world } = this;
    for (;;) {
      await world.sleep(1_000);
      const member = world.members.find(({ server }) => server !== undefined);
      if (member === undefined) continue;
      const answer = await this.call(member, Maintenance.methods.alarm, { action: AlarmAction.GET });
      const raised = 'ok' in answer ? answer.ok.alarms.filter(({ alarm }) => alarm === AlarmType.NOSPACE) : [];
      const statuses = await Promise.all(world.members.map((one) => this.status(one)));
      const isFull = statuses.some((status, at) => 'ok' in status && status.ok.dbSize > (world.plan.quotas[at] ?? 0));
      if (!('ok' in answer) || (raised.length === 0 && !isFull)) continue;
      await this.call(member, KV.methods.compact, { revision: answer.ok.header?.revision ?? 0, physical: true });
      for (const { memberId, alarm } of raised) {
        await this.call(member, Maintenance.methods.alarm, { action: AlarmAction.DEACTIVATE, memberId, alarm });
      }
    }
  }

  put(member: Member, key: string, value: string): Promise<Answer<unknown>> {
    return this.call(member, KV.methods.put, { key: Buffer.from(key), value: Buffer.from(value) });
  }

  get(member: Member, key: string): Promise<Answer<{ readonly kvs: readonly { readonly value: Uint8Array }[] }>> {
    return this.call(member, KV.methods.range, { key: Buffer.from(key) });
  }

  hashKv(
    member: Member,
    revision: number,
  ): Promise<Answer<{ readonly hash: number; readonly compactRevision: number; readonly hashRevision: number }>> {
    return this.call(member, Maintenance.methods.hashKv, { revision });
  }

  status(member: Member): Promise<Answer<StatusResponse>> {
    return this.call(member, Maintenance.methods.status, {}, 1_000);
  }

  get world(): World {
    return this.#world;
  }
}
