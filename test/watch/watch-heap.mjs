// A process that opens many watches and measures what each takes. Arguments: address, number of watches. Sends { bytes }. Runs what is built, as
// names that are kept for sources make functions larger.
import { connect } from '@conclave/sdk';

const [address = '', count = ''] = process.argv.slice(2);
const client = await connect({ endpoints: address });

/** Opens so many watches, and waits until they stand. */
function open(first, many) {
  return new Promise((resolve) => {
    let standing = 0;
    const onStanding = () => {
      if (++standing === many) resolve();
    };
    for (let n = first; n < first + many; n++) {
      client.watch(`watched/${n}`, { startRevision: 1, notifyCreated: true }).subscribe(() => onStanding());
    }
  });
}

function heapUsed() {
  for (let round = 0; round < 3; round++) globalThis.gc();
  return process.memoryUsage().heapUsed;
}

// What is made once is made before the measurement.
await open(0, 100);
const before = heapUsed();
await open(100, Number(count));
process.send({ bytes: (heapUsed() - before) / Number(count) });
await client.close();
process.disconnect();
