import type { Client } from '@conclave/sdk';
import { Random } from '@conclave/testing';
import { TcpProxy } from '@conclave/testkit';
import { type ClientName, type Comparison, cell, connectCompared, ofBoth, pause } from './compared.ts';

const events = 4_000;
const valueBytes = 100;
/** After so long without an event a client that has not got all of them is taken not to: longer than the longest pause between its attempts to connect. */
const patienceMs = 35_000;

/** What came of one watch: of `events` events, in order of revision. */
interface Told {
  readonly cuts: number;
  readonly lost: number;
  readonly repeated: number;
  readonly disordered: number;
}

/** Item 1: a connection that is cut at every so many bytes, while a watch catches up and while it is told live. */
export async function compareWatchCuts(address: string, writer: Client): Promise<readonly Comparison[]> {
  const rows: Comparison[] = [];
  for (const cuts of [1, 5, 20, 50]) {
    const first = await write(writer, `cuts/history/${cuts}/`);
    rows.push(row(`history, ${cuts} cut${cuts === 1 ? '' : 's'}`, await ofBoth((name) => caughtUp(name, address, cuts, first))));
  }
  for (const cuts of [1, 20, 50])
    rows.push(row(`live, ${cuts} cut${cuts === 1 ? '' : 's'}`, await ofBoth((name) => live(name, address, cuts, writer))));
  return rows;
}

function row(what: string, told: Record<ClientName, Told>): Comparison {
  const show = ({ lost, repeated, disordered, cuts }: Told) =>
    cell(`${lost} lost, ${repeated} twice, ${disordered} out of order (${cuts} cuts)`, lost + repeated + disordered === 0 && cuts > 0);
  return {
    item: 1,
    measure: `watch of ${events} events, ${what}`,
    bar: '0 lost, 0 twice, in order',
    ours: show(told.ours),
    etcd3: show(told.etcd3),
  };
}

async function write(writer: Client, prefix: string): Promise<number> {
  const { revision } = await writer.put(`${prefix}0`, 'x');
  for (let n = 1; n < events; n += 100)
    await Promise.all(
      Array.from({ length: Math.min(100, events - n) }, (_, at) => writer.put(`${prefix}${n + at}`, 'x'.repeat(valueBytes))),
    );
  return Number(revision);
}

async function caughtUp(name: ClientName, address: string, cuts: number, first: number): Promise<Told> {
  await using proxy = await TcpProxy.to(address);
  await using client = await connectCompared(name, { hosts: [proxy.address] });
  await client.get('warm-up');
  cutSometimes(proxy, cuts);
  const revisions: number[] = [];
  const watching = await client.watch(`cuts/history/${cuts}/`, first, ({ revision }) => revisions.push(revision));
  await settled(revisions);
  proxy.behave();
  await watching.stop();
  return judge(revisions, first, proxy.cuts);
}

async function live(name: ClientName, address: string, cuts: number, writer: Client): Promise<Told> {
  await using proxy = await TcpProxy.to(address);
  await using client = await connectCompared(name, { hosts: [proxy.address] });
  await client.get('warm-up');
  const revisions: number[] = [];
  const prefix = `cuts/live/${name}/${cuts}/`;
  const watching = await client.watch(prefix, undefined, ({ revision }) => revisions.push(revision));
  cutSometimes(proxy, cuts);
  const first = await write(writer, prefix);
  await settled(revisions);
  proxy.behave();
  await watching.stop();
  return judge(revisions, first, proxy.cuts);
}

/** Spreads the cuts over what all events take on the wire, the same for every client, at bytes of no meaning. */
function cutSometimes(proxy: TcpProxy, cuts: number): void {
  const random = new Random(cuts);
  const bytesAnEvent = valueBytes + 80;
  const step = (events * bytesAnEvent) / (cuts + 1);
  let left = cuts;
  proxy.cutEvery(() => (left-- > 0 ? Math.ceil(step * (0.5 + random.next() * 0.5)) : Number.POSITIVE_INFINITY));
}

async function settled(revisions: readonly number[]): Promise<void> {
  for (let seen = -1, since = performance.now(); new Set(revisions).size < events; await pause(20)) {
    if (revisions.length !== seen) [seen, since] = [revisions.length, performance.now()];
    else if (performance.now() - since > patienceMs) return;
  }
  // And time for one too many.
  await pause(200);
}

function judge(revisions: readonly number[], first: number, cuts: number): Told {
  const distinct = new Set(revisions.filter((revision) => revision >= first && revision < first + events));
  const disordered = revisions.filter((revision, at) => at > 0 && revision < (revisions[at - 1] ?? 0)).length;
  return { cuts, lost: events - distinct.size, repeated: revisions.length - new Set(revisions).size, disordered };
}
