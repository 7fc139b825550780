import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Cluster, type Init, KV, type MethodDescriptor, PutRequest } from '@conclave/protocol';
import type { Entry } from '@conclave/raft';
import { systemRuntime } from '@conclave/wire';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Applier } from './apply/apply.ts';
import { encodeEntry } from './apply/entry.ts';
import { type ConclaveServer, startServer } from './embed.ts';
import { LeaseTable } from './lease/lease-table.ts';
import { openMemberStorage } from './member-storage.ts';
import { clusterIdOf, memberIdOf } from './membership/ids.ts';
import { MemberTable } from './membership/member-table.ts';
import { Mvcc } from './mvcc/mvcc.ts';

const runtime = systemRuntime();
const memberId = memberIdOf(['http://localhost:2380'], 'etcd-cluster');
const key = new TextEncoder().encode('kept');
let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'older-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** What a member left behind before the members stood in the log: a term's first entry and a put, and no founder. */
async function leaveOlderState(dataDir: string, isApplied: boolean): Promise<void> {
  const fatal = (cause: Error): never => {
    throw cause;
  };
  const founder = () => Promise.resolve({ memberId, clusterId: clusterIdOf([memberId]) });
  const { log, store, close } = await openMemberStorage({ runtime, fatal, dataDir, founder, ports: {} });
  const put = { kind: 'put', member: memberId, epoch: 1, counter: 1, term: 1, user: '', authRevision: 0 } as const;
  const request = { ...put, body: PutRequest.encode({ key, value: key }) };
  const entries: Entry[] = [
    { term: 1, index: 1, type: 'normal', data: new Uint8Array() },
    { term: 1, index: 2, type: 'normal', data: encodeEntry(request) },
  ];
  await new Promise<void>((resolve) => log.append({ entries, hardState: { term: 1, vote: memberId, commit: 2 } }, resolve));
  if (isApplied) {
    const applier = new Applier({ store, mvcc: new Mvcc(store), leases: new LeaseTable(store), members: new MemberTable(store) });
    applier.applyEmpty(1, 1);
    applier.apply(2, 1, request);
  }
  await log.close();
  await close();
}

function ask<I, O>(server: ConclaveServer, method: MethodDescriptor<I, O>, request: Init<I>): Promise<O> {
  const connection = server.transport(server.name);
  return new Promise((resolve, reject) => {
    connection.unary(method.path, method.input.encode(request), {}, (end, response) => {
      if (response === undefined) reject(new Error(end.message));
      else resolve(method.output.decode(response));
    });
  });
}

describe.each([
  ['was applied', true],
  ['is still only in the log', false],
])('a data dir from before the members stood in the log, whose last entry %s', (_, isApplied) => {
  it('goes on as a cluster of its one member', async () => {
    const dataDir = join(folder, 'data');
    await leaveOlderState(dataDir, isApplied);
    for (const name of ['default', 'renamed']) {
      await using server = await startServer({ dataDir, name });
      const { kvs, header } = await ask(server, KV.methods.range, { key });
      expect(kvs).toMatchObject([{ key, value: key, modRevision: 2 }]);
      expect(header).toMatchObject({ memberId, revision: 2 });
      const { members } = await ask(server, Cluster.methods.memberList, { linearizable: true });
      expect(members).toEqual([{ id: memberId, name, peerUrls: ['http://localhost:2380'], clientUrls: [], isLearner: false }]);
    }
  });
});
