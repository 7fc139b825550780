import { createHash } from 'node:crypto';
import { Maintenance, MemberListResponse, MoveLeaderRequest, SnapshotResponse, StatusResponse } from '@conclave/protocol';
import { isConclaveError, type SnapshotProgress } from '@conclave/sdk';
import { type ScriptedClient, type ScriptedStream, scriptedClient } from '@conclave/testkit';
import { beforeEach, describe, expect, test } from 'vitest';

let scripted: ScriptedClient;

beforeEach(async () => {
  scripted = await scriptedClient();
});

describe('a chosen member', () => {
  test('is asked itself, also when it is not among the endpoints, over one connection, which ends with the client', async () => {
    const { client, script, runtime } = scripted;
    script.onCall = (call) => call.reply(StatusResponse.encode({ header: { memberId: 7n }, leader: 7n }));
    const member = client.maintenance.at('http://b:2');
    expect(script.to('b:2')).toHaveLength(0);
    for (let n = 0; n < 3; n++) expect(await runtime.run(member.status())).toMatchObject({ memberId: 7n, leader: 7n, isLeader: true });
    expect(await runtime.run(client.maintenance.at('b:2').status())).toMatchObject({ isLeader: true });
    expect(script.calls.map(({ address }) => address)).toEqual(['b:2', 'b:2', 'b:2', 'b:2']);
    expect(script.to('b:2')).toHaveLength(1);
    await client.close();
    expect(script.to('b:2')).toHaveLength(0);
    await expect(runtime.run(member.status())).rejects.toMatchObject({ code: 'client-closed' });
  });

  test('is one address', () => {
    for (const address of ['', 'a:1,b:2']) {
      expect(() => scripted.client.maintenance.at(address)).toThrow(expect.objectContaining({ code: 'invalid-argument' }));
    }
  });
});

test('a change whose answer is lost is not made again, and its outcome is unknown', async () => {
  const { client, script, runtime } = scripted;
  script.onCall = (call) => call.end(14, { message: 'connection lost' });
  await expect(runtime.run(client.cluster.remove(1n))).rejects.toMatchObject({ code: 'unavailable', outcome: 'unknown' });
  expect(script.calls).toHaveLength(1);
});

test('a question whose answer is lost is asked again', async () => {
  const { client, script, runtime } = scripted;
  script.onCall = (call) => {
    if (script.calls.length < 3) call.end(14, { message: 'connection lost' });
    else call.reply(MemberListResponse.encode({ members: [{ id: 2n ** 64n - 1n, name: 'm' }] }));
  };
  expect(await runtime.run(client.cluster.members())).toEqual([
    { id: 2n ** 64n - 1n, name: 'm', peerUrls: [], clientUrls: [], isLearner: false },
  ]);
});

test('leadership is moved by the member that has it, wherever the request came first', async () => {
  const script = await scriptedClient({ endpoints: ['a:1', 'b:2', 'c:3'] });
  script.script.onCall = (call) => {
    if (call.address === 'c:3') call.reply(new Uint8Array(0));
    else call.end(9, { message: 'etcdserver: not leader' });
  };
  await script.runtime.run(script.client.maintenance.moveLeader(2n ** 63n));
  expect(MoveLeaderRequest.decode(script.script.call.request).targetId).toBe(2n ** 63n);
});

test.each([-1, 2 ** 53, 2n ** 64n])('%d is no member id', async (id) => {
  await expect(scripted.client.cluster.promote(id)).rejects.toMatchObject({ code: 'invalid-argument' });
  await expect(scripted.client.maintenance.moveLeader(id)).rejects.toMatchObject({ code: 'invalid-argument' });
});

describe('a snapshot', () => {
  const data = new Uint8Array(1_000).map((_, at) => at);
  const checksum = new Uint8Array(createHash('sha256').update(data).digest());

  /** Reads a snapshot that comes in these blobs. */
  async function read(
    blobs: readonly Uint8Array[],
    finish = (stream: ScriptedStream): void => stream.end(0),
  ): Promise<{ bytes: Uint8Array; progress: SnapshotProgress[]; error: unknown }> {
    const { client, script, runtime } = scripted;
    script.onStream = (stream) => {
      let remainingBytes = blobs.reduce((sum, blob) => sum + blob.length, 0);
      for (const blob of blobs) {
        remainingBytes -= blob.length;
        stream.send(SnapshotResponse.encode({ blob, remainingBytes }));
      }
      finish(stream);
    };
    const chunks: Uint8Array[] = [];
    const progress: SnapshotProgress[] = [];
    const reading = (async () => {
      const snapshot = client.maintenance.at('b:2').snapshot({ onProgress: (told) => progress.push(told) });
      for await (const chunk of snapshot) chunks.push(chunk);
    })();
    const error = await runtime.run(
      reading.then(
        () => undefined,
        (reason: unknown) => reason,
      ),
    );
    return { bytes: new Uint8Array(Buffer.concat(chunks)), progress, error };
  }

  test.each([
    ['the checksum alone in the last message', [data.subarray(0, 600), data.subarray(600), checksum]],
    ['all in one message', [Buffer.concat([data, checksum])]],
    ['the checksum torn apart', [data, checksum.subarray(0, 5), checksum.subarray(5)]],
    ['one byte a message', [...Buffer.concat([data, checksum])].map((byte) => new Uint8Array([byte]))],
  ])('comes whole, with %s', async (_name, blobs) => {
    const { bytes, progress, error } = await read(blobs);
    expect(error).toBeUndefined();
    expect(bytes).toEqual(new Uint8Array(Buffer.concat([data, checksum])));
    expect(progress).toHaveLength(blobs.length);
    expect(progress.at(-1)).toEqual({ receivedBytes: 1_032, remainingBytes: 0 });
    expect(scripted.script.stream).toMatchObject({ address: 'b:2', path: Maintenance.methods.snapshot.path, isHalfClosed: true });
  });

  test.each([
    ['a changed byte', [new Uint8Array(1_000), checksum]],
    ['a missing end', [data]],
    ['nothing at all', []],
  ])('with %s is refused, and its checksum is not given out', async (_name, blobs) => {
    const { bytes, error } = await read(blobs);
    expect(isConclaveError(error, 'snapshot-corrupt')).toBe(true);
    expect(bytes.length % 512).not.toBe(32);
  });

  test('that breaks off tells how', async () => {
    const { error } = await read([data], (stream) => stream.end(14, { message: 'etcdserver: server stopped' }));
    expect(error).toMatchObject({ code: 'server-stopped', outcome: 'not-applied' });
  });

  test('of a member that cannot be reached, or that sends nothing, ends at the deadline', async () => {
    const { client, script, runtime } = scripted;
    const first = async (address: string): Promise<unknown> => {
      for await (const chunk of client.maintenance.at(address).snapshot({ deadlineMs: 300 })) return chunk;
      return undefined;
    };
    script.reach = (address) => address !== 'gone:1';
    await expect(runtime.run(first('gone:1'))).rejects.toMatchObject({ code: 'unavailable' });
    await expect(runtime.run(first('silent:1'))).rejects.toMatchObject({ code: 'deadline-exceeded' });
    expect(script.stream.isCancelled).toBe(true);
  });

  test('is given up by its signal, by leaving the loop, and with the client', async () => {
    const { client, script, runtime } = scripted;
    script.onStream = (stream) => stream.send(SnapshotResponse.encode({ blob: data, remainingBytes: 5_000 }));
    const controller = new AbortController();
    const readOn = async (signal?: AbortSignal): Promise<void> => {
      for await (const _ of client.maintenance.at('b:2').snapshot({ signal })) if (signal === undefined) break;
    };
    const reading = readOn(controller.signal);
    const outcome = expect(reading).rejects.toMatchObject({ code: 'cancelled' });
    await runtime.advance(1);
    controller.abort();
    await runtime.run(outcome);
    expect(script.stream.isCancelled).toBe(true);

    await runtime.run(readOn());
    expect(script.stream.isCancelled).toBe(true);

    const last = expect(readOn(new AbortController().signal)).rejects.toMatchObject({ code: 'client-closed' });
    await runtime.advance(1);
    await client.close();
    await runtime.run(last);
  });

  test('holds the member back while it is not read', async () => {
    const { client, script, runtime } = scripted;
    script.onStream = (stream) => {
      for (let n = 0; n < 100; n++) stream.send(SnapshotResponse.encode({ blob: data, remainingBytes: 1_000 * (100 - n) }));
    };
    const chunks = client.maintenance.at('b:2').snapshot()[Symbol.asyncIterator]();
    await runtime.run(chunks.next());
    await runtime.advance(1);
    expect(script.stream.isPaused).toBe(true);
    for (let n = 1; n < 50; n++) await runtime.run(chunks.next());
    await client.close();
    expect(script.stream.isCancelled).toBe(true);
  });
});
