// A server in a process that also measures itself: how late its timers are. Arguments: data dir. Says { address } when ready, and answers
// { measure: true } with the lateness since the last time, in milliseconds.
import { startServer } from '@conclave/server';

const [dataDir = ''] = process.argv.slice(2);
const everyMs = 5;
let late: number[] = [];
let dueAt = performance.now() + everyMs;

function sample(): void {
  const now = performance.now();
  late.push(Math.max(0, now - dueAt));
  dueAt = now + everyMs;
  setTimeout(sample, everyMs);
}
setTimeout(sample, everyMs);

export interface Lateness {
  readonly samples: number;
  readonly p50: number;
  readonly p99: number;
  readonly p999: number;
  readonly max: number;
}

process.on('message', () => {
  const sorted = late.sort((a, b) => a - b);
  const at = (share: number): number => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
  const lateness: Lateness = { samples: sorted.length, p50: at(0.5), p99: at(0.99), p999: at(0.999), max: at(1) };
  late = [];
  process.send?.({ lateness });
});

const server = await startServer({ dataDir, listen: '127.0.0.1:0' });
process.on('disconnect', () => {
  void server.close().finally(() => process.exit(0));
});
process.send?.({ address: server.endpoints[0] });
