/** One measured run of one client against one server. */
export interface Order {
  readonly workload: WorkloadName;
  /** Requests under way at a time; for watch fan-out: writers; for locks: contenders. */
  readonly inFlight: number;
  readonly ms: number;
}

export type WorkloadName = 'put' | 'get' | 'get-serializable' | 'txn' | 'watch' | 'lock' | 'lock-handover';

export interface Outcome {
  /** Operations that ended within the time; for watch: events delivered to watchers. */
  readonly operations: number;
  readonly seconds: number;
  /** User and system time of the client process, in microseconds. */
  readonly cpuUs: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

/** What the load needs of a client, so that ours and a peer's do the same. */
export interface Subject extends AsyncDisposable {
  put(key: string, value: Buffer): Promise<unknown>;
  get(key: string, serializable: boolean): Promise<unknown>;
  /** Compares the key's mod revision with one that no key has, and puts in the other branch. */
  txn(key: string, value: Buffer): Promise<unknown>;
  /** Calls back for every event under the prefix; resolves once it watches. */
  watch(prefix: string, onEvent: () => void): Promise<() => Promise<void>>;
  /** Takes a lock that nobody else wants, and gives it back. */
  lockPair(name: string): Promise<void>;
  /** Takes a lock that others want too, and gives it back; undefined where the client cannot wait for a lock. */
  readonly contendedPair: ((name: string) => Promise<void>) | undefined;
}

const valueBytes = 256;
const keys = 10_000;
const watchers = 100;

export async function perform(subject: Subject, order: Order): Promise<Outcome> {
  const { workload, inFlight, ms } = order;
  if (workload === 'watch') return await fanOut(subject, inFlight, ms);
  const value = Buffer.alloc(valueBytes, 'v');
  const run = operationOf(subject, workload, value);
  // Warm: code paths, connections, and the store's own caches.
  await drive(run, inFlight, Math.min(300, ms / 3));
  return await drive(run, inFlight, ms);
}

function operationOf(subject: Subject, workload: Exclude<WorkloadName, 'watch'>, value: Buffer): (worker: number) => Promise<unknown> {
  const key = (): string => `bench/${Math.floor(Math.random() * keys)}`;
  switch (workload) {
    case 'put':
      return () => subject.put(key(), value);
    case 'get':
      return () => subject.get(key(), false);
    case 'get-serializable':
      return () => subject.get(key(), true);
    case 'txn':
      return () => subject.txn(key(), value);
    case 'lock':
      return (worker) => subject.lockPair(`bench-lock-${worker}`);
    case 'lock-handover': {
      const pair = subject.contendedPair;
      if (pair === undefined) throw new Error('this client cannot wait for a lock');
      return () => pair('bench-handover');
    }
  }
}

async function drive(run: (worker: number) => Promise<unknown>, inFlight: number, ms: number): Promise<Outcome> {
  const latencies: number[] = [];
  const cpuBefore = process.cpuUsage();
  const startedAt = performance.now();
  const endAt = startedAt + ms;
  const worker = async (at: number): Promise<void> => {
    for (let sentAt = performance.now(); sentAt < endAt; ) {
      await run(at);
      const now = performance.now();
      latencies.push(now - sentAt);
      sentAt = now;
    }
  };
  await Promise.all(Array.from({ length: inFlight }, (_, at) => worker(at)));
  return outcome(latencies.length, startedAt, cpuBefore, latencies);
}

/** Every put becomes one event for each watcher; the run ends when all are delivered. */
async function fanOut(subject: Subject, writers: number, ms: number): Promise<Outcome> {
  let events = 0;
  const stops = await Promise.all(
    Array.from({ length: watchers }, () =>
      subject.watch('bench-watch/', () => {
        events += 1;
      }),
    ),
  );
  const value = Buffer.alloc(valueBytes, 'v');
  const startedAt = performance.now();
  const cpuBefore = process.cpuUsage();
  const puts = await drive(() => subject.put(`bench-watch/${Math.floor(Math.random() * keys)}`, value), writers, ms);
  const deadline = performance.now() + 20_000;
  while (events < puts.operations * watchers && performance.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 2));
  const result = outcome(events, startedAt, cpuBefore, [puts.p50Ms, puts.p99Ms]);
  for (const stop of stops) await stop();
  if (events !== puts.operations * watchers) throw new Error(`${events} events for ${puts.operations} puts and ${watchers} watchers`);
  return result;
}

function outcome(operations: number, startedAt: number, cpuBefore: NodeJS.CpuUsage, latencies: number[]): Outcome {
  const seconds = (performance.now() - startedAt) / 1000;
  const cpu = process.cpuUsage(cpuBefore);
  latencies.sort((a, b) => a - b);
  const at = (share: number): number => latencies[Math.min(latencies.length - 1, Math.floor(latencies.length * share))] ?? 0;
  return { operations, seconds, cpuUs: cpu.user + cpu.system, p50Ms: at(0.5), p99Ms: at(0.99) };
}
