// A process that follows a watch slowly and measures its own memory. Arguments: address, first revision, number of events, `overflow`.
import { connect, prefix, type WatchOptions } from '@conclave/sdk';
import type { SlowLoopReport } from './slow-watch.ts';

const [address = '', startRevision = '', count = '', overflow = ''] = process.argv.slice(2);
const total = Number(count);
/** After so many events the loop rests. */
const stride = 500;
const restMs = 8;

await using client = await connect({ endpoints: address });
// What is loaded on first use is loaded before the measurement.
for await (const _ of client.watch(prefix('slow/'), { startRevision: BigInt(startRevision) })) break;
globalThis.gc?.();

const before = process.memoryUsage().rss;
let peak = before;
const sampling = setInterval(() => {
  peak = Math.max(peak, process.memoryUsage().rss);
}, 5);

let told = 0;
let conflated = 0;
let disorder = 0;
let last = '';
const startedAt = performance.now();
const options = { startRevision: BigInt(startRevision), overflow: overflow as WatchOptions['overflow'] };
for await (const event of client.watch(prefix('slow/'), options)) {
  told++;
  conflated += event.conflated;
  const place = `${String(event.revision).padStart(12, '0')} ${event.key}`;
  if (place <= last) disorder++;
  last = place;
  if (told + conflated === total) break;
  if (told % stride === 0) await new Promise((resolve) => setTimeout(resolve, restMs));
}
clearInterval(sampling);

const growthBytes = peak - before;
const report: SlowLoopReport = { told, conflated, disorder, growthBytes, seconds: (performance.now() - startedAt) / 1000 };
process.send?.(report);
process.disconnect();
