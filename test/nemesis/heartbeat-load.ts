// The other process of the scenario `heartbeats`: fills a store with a million keys, then reads all of them and writes the largest requests there are,
// again and again, until it is told to stop. In a process of its own, so that the one that listens on the wires has nothing else to do.
import { KV } from '@conclave/protocol';
import { RawClient } from '@conclave/testkit';
import { systemRuntime } from '@conclave/wire';
import { grpcTransport } from '@conclave/wire/grpc-client';

const [keysWanted = '0', ...endpoints] = process.argv.slice(2);
const transport = grpcTransport({ runtime: systemRuntime() });
const clients = endpoints.map((endpoint) => new RawClient(transport(endpoint)));
const encoder = new TextEncoder();
const timeoutMs = 120_000;
const opsPerTxn = 128;
/** As etcd's default bound on a request, with room for the rest of it. */
const largestValue = new Uint8Array(1.5 * 1024 * 1024 - 1024).fill(120);

const done = { ranges: 0, keys: 0, writes: 0, refused: 0 };
let isStopping = false;

async function fill(count: number): Promise<void> {
  let next = 0;
  const worker = async (client: RawClient): Promise<void> => {
    while (next < count) {
      const from = next;
      next += opsPerTxn;
      const size = Math.min(opsPerTxn, count - from);
      const success = Array.from({ length: size }, (_, at) => ({
        requestPut: { key: encoder.encode(`million/${String(from + at).padStart(7, '0')}`), value: encoder.encode('x') },
      }));
      const { code, message } = await client.unary(KV.methods.txn, { success }, { timeoutMs });
      if (code !== 0) throw new Error(`filling failed: ${code} ${message}`);
    }
  };
  await Promise.all(clients.flatMap((client) => [worker(client), worker(client)]));
}

/** Through one member after the other: the leader knows what it may answer, the others ask it. */
function memberFor(n: number): RawClient {
  return clients[n % clients.length] as RawClient;
}

async function readAll(): Promise<void> {
  const request = { key: encoder.encode('million/'), rangeEnd: encoder.encode('million0') };
  for (let n = 0; !isStopping; n++) {
    const { response } = await memberFor(n).unary(KV.methods.range, request, { timeoutMs });
    if (response === undefined) {
      done.refused++;
      continue;
    }
    done.ranges++;
    done.keys += response.kvs.length;
  }
}

async function writeLargest(): Promise<void> {
  for (let n = 0; !isStopping; n++) {
    const { code } = await memberFor(n).unary(
      KV.methods.put,
      { key: encoder.encode(`largest/${n % 3}`), value: largestValue },
      { timeoutMs },
    );
    if (code === 0) done.writes++;
    else done.refused++;
  }
}

process.on('message', (message) => {
  if (message === 'stop') isStopping = true;
});
// An orphan must not go on.
process.on('disconnect', () => process.exit());

await fill(Number(keysWanted));
process.send?.('filled');
await Promise.all([readAll(), writeLargest()]);
for (const { connection } of clients) connection.close();
process.send?.(done);
