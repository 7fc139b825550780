import { KV, PutRequest, PutResponse, RangeRequest, RangeResponse } from '@conclave/protocol';
import { lock } from '@conclave/recipes';
import { connect, key, type Lease, prefix, put } from '@conclave/sdk';
import { Client, credentials } from '@grpc/grpc-js';
import { Etcd3 } from 'etcd3';
import type { Subject } from './workload.ts';

export type SubjectName = 'sdk' | 'etcd3' | 'grpc-js';

export function openSubject(name: SubjectName, address: string): Promise<Subject> {
  if (name === 'sdk') return openSdk(address);
  return name === 'etcd3' ? openEtcd3(address) : openGrpc(address);
}

async function openSdk(address: string): Promise<Subject> {
  const client = await connect({ endpoints: address });
  const leases: Lease[] = [];
  return {
    put: (name, value) => client.put(name, value),
    get: (name, serializable) => client.get(name, { serializable }),
    txn: (name, value) => client.txn().if(key(name).modRevision.equals(1)).else(put(name, value)).commit(),
    async watch(start, onEvent) {
      let created: () => void = () => undefined;
      const ready = new Promise<void>((resolve) => {
        created = resolve;
      });
      const subscription = client.watch(prefix(start), { notifyCreated: true }).subscribe({
        next: (event) => (event.type === 'created' ? created() : onEvent()),
      });
      await ready;
      return async () => subscription.unsubscribe();
    },
    async lockPair(name) {
      await (await lock(client, name)).release();
    },
    async contendedPair(name) {
      // One lease a contender, as a service would have it.
      const lease = leases.pop() ?? (await client.lease.grant({ ttlSeconds: 60 }));
      await (await lock(client, name, { lease })).release();
      leases.push(lease);
    },
    async [Symbol.asyncDispose]() {
      for (const lease of leases) await lease.revoke();
      await client.close();
    },
  };
}

async function openEtcd3(address: string): Promise<Subject> {
  const client = new Etcd3({ hosts: `http://${address}` });
  return {
    put: (name, value) => client.put(name).value(value).exec(),
    get: (name, serializable) => (serializable ? client.get(name).serializable(true).exec() : client.get(name).exec()),
    txn: (name, value) => client.if(name, 'Mod', '==', 1).else(client.put(name).value(value)).commit(),
    async watch(start, onEvent) {
      const watcher = await client.watch().prefix(start).create();
      watcher.on('put', onEvent);
      return () => watcher.cancel();
    },
    async lockPair(name) {
      await (await client.lock(name).ttl(10).acquire()).release();
    },
    contendedPair: undefined,
    async [Symbol.asyncDispose]() {
      client.close();
    },
  };
}

/** What every client here stands on, with nothing around it but the encoding of messages. */
async function openGrpc(address: string): Promise<Subject> {
  const client = new Client(address, credentials.createInsecure());
  function call<I, O>(path: string, encode: (request: I) => Uint8Array, decode: (bytes: Uint8Array) => O, request: I): Promise<O> {
    return new Promise((resolve, reject) => {
      const serialize = (message: I): Buffer => Buffer.from(encode(message));
      client.makeUnaryRequest<I, O>(path, serialize, decode, request, (error, answer) =>
        error === null && answer !== undefined ? resolve(answer) : reject(error),
      );
    });
  }
  const unsupported = (): never => {
    throw new Error('bare grpc-js does only single calls here');
  };
  return {
    put: (name, value) => call(KV.methods.put.path, PutRequest.encode, PutResponse.decode, { key: Buffer.from(name), value }),
    get: (name, serializable) =>
      call(KV.methods.range.path, RangeRequest.encode, RangeResponse.decode, { key: Buffer.from(name), serializable }),
    txn: unsupported,
    watch: unsupported,
    lockPair: unsupported,
    contendedPair: undefined,
    async [Symbol.asyncDispose]() {
      client.close();
    },
  };
}
