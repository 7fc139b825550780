import { AlarmRequest, AlarmType, HashKVRequest, HashKVResponse } from '@conclave/protocol';
import { VirtualRuntime } from '@conclave/testing';
import { StatusError } from '@conclave/wire';
import { expect, it } from 'vitest';
import type { Applied } from './apply/apply.ts';
import { CorruptionCheck } from './corruption-check.ts';

type Handler = (body: Uint8Array, from: bigint) => Promise<Uint8Array>;

/** Members 1, 2, ... that hold what these hashes say; member 1 leads. undefined: it does not answer. */
function cluster(hashes: readonly (number | undefined)[], compactRevisions: readonly number[] = []) {
  const runtime = new VirtualRuntime();
  const raised: bigint[] = [];
  const handlers = new Map<bigint, Handler>();
  const list = hashes.map((_, at) => ({ id: BigInt(at + 1) }));
  const checks = hashes.map((hash, at) => {
    const memberId = BigInt(at + 1);
    return new CorruptionCheck({
      runtime,
      memberId,
      intervalMs: 1000,
      members: { list: () => list as never },
      mvcc: {
        revision: 5,
        hashKv: (revision) => Promise.resolve({ hash: hash ?? 0, hashRevision: revision, compactRevision: compactRevisions[at] ?? -1 }),
      },
      applier: { alarms: { list: () => raised.map((id) => ({ memberId: id, alarm: AlarmType.CORRUPT })) } as never },
      replica: {
        isLeader: at === 0,
        onCall: (_method, handler) => handlers.set(memberId, handler),
        call: (member, _method, body) => {
          if (hashes[Number(member) - 1] === undefined) return Promise.reject(new StatusError(14, 'etcdserver: request timed out'));
          expect(HashKVRequest.decode(body).revision).toBe(5);
          return handlers.get(member)?.(body, memberId) ?? Promise.resolve(HashKVResponse.encode({}));
        },
        propose: (_kind, body): Promise<Applied> => {
          raised.push(AlarmRequest.decode(body).memberId);
          return Promise.resolve({ kind: 'alarm', response: { header: undefined, alarms: [] } });
        },
      },
    });
  });
  return { runtime, raised, checks };
}

it('members that agree, or do not answer, or compacted otherwise, raise nothing', async () => {
  for (const { runtime, raised } of [cluster([7, 7, 7]), cluster([7, undefined, undefined]), cluster([7, 8, 7], [-1, 3, -1])]) {
    await runtime.advance(3500);
    expect(raised).toEqual([]);
  }
});

it('the member that differs from the majority is named, once, also where it leads', async () => {
  for (const [hashes, suspects] of [
    [[7, 7, 8], [3n]],
    [[7, 8, 8], [1n]],
    [
      [7, 7, 8, 9, 7],
      [3n, 4n],
    ],
  ] as const) {
    const { runtime, raised } = cluster(hashes);
    await runtime.advance(3500);
    expect(raised).toEqual(suspects);
  }
});

it('without a majority nobody can be named', async () => {
  const { runtime, raised } = cluster([7, 8, undefined]);
  await runtime.advance(1500);
  expect(raised).toEqual([0n]);
});

it('a member does not serve what differs from a peer', async () => {
  const { checks } = cluster([7, 7, 8]);
  await expect(checks[2]?.checkBeforeServing()).rejects.toThrow('member 3 found data inconsistency with peer 1');
  const { checks: sound } = cluster([7, undefined, 7]);
  await sound[2]?.checkBeforeServing();
});
