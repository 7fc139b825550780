import { KV, Lease, type KeyValue as WireKeyValue } from '@conclave/protocol';
import { eventually, type KeyValue, type ProcessCluster } from '@conclave/testkit';

/** What the store holds when nobody uses it any more and the last lease has run out: what a new history begins with. */
export async function storeNow(cluster: ProcessCluster): Promise<{ readonly revision: number; readonly keyValues: readonly KeyValue[] }> {
  const noLease = async (): Promise<boolean> => (await cluster.call(Lease.methods.leaseLeases, {})).response?.leases.length === 0;
  await eventually('all leases have run out', noLease, 30_000);
  const everything = { key: new Uint8Array([0]), rangeEnd: new Uint8Array([0]) };
  const { response, message } = await cluster.call(KV.methods.range, everything);
  if (response === undefined) throw new Error(`the store cannot be read: ${message}`);
  return { revision: response.header?.revision ?? 0, keyValues: response.kvs.map(shown) };
}

function shown({ key, value, createRevision, modRevision, version }: WireKeyValue): KeyValue {
  const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString('latin1');
  return { key: text(key), value: text(value), createRevision, modRevision, version };
}
