import { type Client, connect } from '@conclave/sdk';
import { type ClusterMember, type EtcdLine, launchCluster, type ProcessCluster } from '@conclave/testkit';
import { type ClientName, type Comparison, cell, connectCompared, ofBoth, pause } from './compared.ts';

type Fault = 'killed' | 'paused' | 'partitioned';

const faults: readonly Fault[] = ['killed', 'paused', 'partitioned'];
const readers = 16;
const faultMs = 8_000;

/** Item 6: one of three members fails, each member and each way once. */
export async function compareMemberLoss(kind: 'etcd' | 'conclave', version: EtcdLine): Promise<readonly Comparison[]> {
  const rows: Comparison[] = [];
  for (const fault of faults) {
    const seen = await ofBoth((name) => lose(name, fault, kind, version));
    const stall = ({ errors, stallsMs }: Seen) => {
      const [p99, most] = [stalledMs(stallsMs, 0.99), Math.max(...stallsMs)];
      return cell(`${errors} errors; p99 ${p99.toFixed(0)} ms, longest ${most.toFixed(0)} ms`, errors === 0 && p99 < 2_000);
    };
    rows.push({
      item: 6,
      measure: `reads, one of three ${fault}`,
      bar: 'no error, p99 < 2 s',
      ours: stall(seen.ours),
      etcd3: stall(seen.etcd3),
    });
    const lag = ({ lagMs, missing }: Seen) => cell(`${lagMs.toFixed(0)} ms, ${missing} missing`, missing === 0 && lagMs < 3_000);
    rows.push({
      item: 6,
      measure: `lag of a watch, one of three ${fault}`,
      bar: '< 3 s, none missing',
      ours: lag(seen.ours),
      etcd3: lag(seen.etcd3),
    });
  }
  return rows;
}

interface Seen {
  readonly errors: number;
  /** How long each read took that overlapped the fault. */
  readonly stallsMs: number[];
  /** The longest from a write's acknowledgement to its event. */
  readonly lagMs: number;
  readonly missing: number;
}

async function lose(name: ClientName, fault: Fault, kind: 'etcd' | 'conclave', version: EtcdLine): Promise<Seen> {
  await using cluster = await launchCluster({ kind, version, hasLinks: true });
  const all: Seen[] = [];
  for (const member of cluster.members) {
    const others = cluster.endpoints.filter((endpoint) => endpoint !== member.endpoint);
    await using writer = await connect({ endpoints: others, deadlineMs: 10_000 });
    await writer.put('read', 'me');
    all.push(await during(name, fault, cluster, member, writer));
  }
  return {
    errors: all.reduce((sum, { errors }) => sum + errors, 0),
    stallsMs: all.flatMap(({ stallsMs }) => stallsMs),
    lagMs: Math.max(...all.map(({ lagMs }) => lagMs)),
    missing: all.reduce((sum, { missing }) => sum + missing, 0),
  };
}

async function during(name: ClientName, fault: Fault, cluster: ProcessCluster, member: ClusterMember, writer: Client): Promise<Seen> {
  await using client = await connectCompared(name, { hosts: cluster.endpoints });
  let isOver = false;
  let errors = 0;
  const stallsMs: number[] = [];
  const arrivedAt = new Map<string, number>();
  const watching = await client.watch('lag/', undefined, ({ value }) => {
    if (value !== undefined && !arrivedAt.has(value)) arrivedAt.set(value, performance.now());
  });
  let faultAt = Number.POSITIVE_INFINITY;
  const reading = Array.from({ length: readers }, async () => {
    while (!isOver) {
      const startedAt = performance.now();
      const value = await client.get('read').catch(() => undefined);
      const endedAt = performance.now();
      if (endedAt >= faultAt) {
        stallsMs.push(endedAt - startedAt);
        if (value !== 'me') errors += 1;
      }
      await pause(20);
    }
  });
  await pause(1_000);
  faultAt = performance.now();
  await strike(fault, cluster, member);
  const acknowledgedAt = new Map<string, number>();
  for (let n = 0; performance.now() - faultAt < faultMs; n++) {
    const value = `${member.name} ${n}`;
    // Without a leader for a moment there may be no write at all.
    const isDone = await writer.put('lag/k', value).then(
      () => true,
      () => false,
    );
    if (isDone) acknowledgedAt.set(value, performance.now());
    await pause(50);
  }
  const all = [...acknowledgedAt.keys()];
  for (const until = performance.now() + 20_000; performance.now() < until && !all.every((value) => arrivedAt.has(value)); )
    await pause(20);
  isOver = true;
  await mend(fault, cluster, member);
  await Promise.all(reading);
  await watching.stop();
  const lags = all.map((value) => (arrivedAt.get(value) ?? performance.now()) - (acknowledgedAt.get(value) ?? 0));
  return { errors, stallsMs, lagMs: Math.max(...lags), missing: all.filter((value) => !arrivedAt.has(value)).length };
}

/**
 * At this share of all moments of all readers the read under way has waited for less than that. Not a quantile over the reads: one that hangs
 * counts there as one among thousands that were quick meanwhile.
 */
function stalledMs(readsMs: readonly number[], share: number): number {
  const moments = readers * faultMs * 3;
  let [low, high] = [0, Math.max(...readsMs)];
  while (high - low > 1) {
    const middle = (low + high) / 2;
    const longer = readsMs.reduce((sum, ms) => sum + Math.max(0, ms - middle), 0);
    if (longer > (1 - share) * moments) low = middle;
    else high = middle;
  }
  return high;
}

async function strike(fault: Fault, cluster: ProcessCluster, member: ClusterMember): Promise<void> {
  if (fault === 'killed') await member.kill();
  else if (fault === 'paused') member.pause();
  else cluster.links?.partition([member.name], cluster.names);
}

async function mend(fault: Fault, cluster: ProcessCluster, member: ClusterMember): Promise<void> {
  if (fault === 'killed') await member.restart();
  else if (fault === 'paused') member.resume();
  else cluster.links?.heal();
  await cluster.leader();
}
