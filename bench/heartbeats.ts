import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { launchCluster, type PeerLinks } from '@conclave/testkit';
import { PeerFormatError } from '../packages/server/src/transport/binary.ts';
import { FrameReader } from '../packages/server/src/transport/frame.ts';
import { readHello } from '../packages/server/src/transport/handshake.ts';
import { decodePacket } from '../packages/server/src/transport/peer-codec.ts';
import { quantile } from './figures.ts';
import type { HeavyLoad } from './heavy-load.ts';

export interface HeartbeatOptions {
  readonly ms: number;
  readonly keys: number;
  readonly heartbeatMs: number;
  readonly electionMs: number;
}

interface HeartbeatGaps {
  readonly load: HeavyLoad;
  /** Milliseconds between two heartbeats of the leader to the same follower. */
  readonly samples: number;
  readonly p50: number;
  readonly p99: number;
  readonly p999: number;
  readonly max: number;
}

const frameBytesMax = 2 ** 27;

/**
 * How regularly the leader's heartbeats leave while all of a million keys are counted, the largest values are written and large txns applied. Seen on
 * the wire between the members.
 *
 * @throws when p99.9 of the gaps exceeds two intervals
 */
export async function benchHeartbeats({ ms, keys, heartbeatMs, electionMs }: HeartbeatOptions): Promise<HeartbeatGaps> {
  await using cluster = await launchCluster({ kind: 'conclave', heartbeatMs, electionMs, hasLinks: true });
  const { links } = cluster;
  if (links === undefined) throw new Error('the cluster has no links to look at');
  const wire = new HeartbeatsOnWire(links);
  // Frames can be told apart only from a connection's beginning.
  links.partition(cluster.names, cluster.names, 'cut');
  links.heal();
  const leader = await cluster.leader();
  const load = fork(fileURLToPath(new URL('./heavy-load.ts', import.meta.url)), [leader.endpoint, String(keys), String(ms)]);
  try {
    await once(load, 'message');
    console.log(`# heartbeats every ${heartbeatMs} ms, beside counts of ${keys} keys, ranges, puts of 1.5 MiB and txns of 128 puts`);
    wire.begin(leader.name);
    load.send({ begin: true });
    const [message] = (await once(load, 'message')) as [{ load: HeavyLoad }];
    const gaps = wire.end();
    if ((await cluster.leader()) !== leader) throw new Error('another leader was elected under this load');
    const at = (share: number): number => quantile(gaps, share);
    const result = { load: message.load, samples: gaps.length, p50: at(0.5), p99: at(0.99), p999: at(0.999), max: at(1) };
    console.log(JSON.stringify(result.load));
    console.log(
      `gaps of ${result.samples}: p50 ${result.p50.toFixed(0)}  p99 ${result.p99.toFixed(0)}  p99.9 ${result.p999.toFixed(0)}  max ${result.max.toFixed(0)} ms`,
    );
    if (result.samples < ms / heartbeatMs) throw new Error(`only ${result.samples} heartbeats in ${ms} ms`);
    if (result.p999 > 2 * heartbeatMs) throw new Error(`p99.9 of the gaps is more than two intervals of ${heartbeatMs} ms`);
    return result;
  } finally {
    load.kill();
  }
}

/** Reads the control lanes as they pass. */
class HeartbeatsOnWire {
  readonly #readers = new Map<string, FrameReader | undefined>();
  /** When the last heartbeat to a member passed. */
  readonly #last = new Map<string, number>();
  #leader: string | undefined;
  #gaps: number[] = [];

  constructor(links: PeerLinks) {
    links.tap((from, to, chunk, connection) => this.#pass(from, to, chunk, connection));
  }

  begin(leader: string): void {
    this.#leader = leader;
  }

  end(): readonly number[] {
    this.#leader = undefined;
    return this.#gaps;
  }

  #pass(from: string, to: string, chunk: Buffer, connection: number): void {
    const key = `${connection} ${from}`;
    if (!this.#readers.has(key)) this.#readers.set(key, this.#newReader(from, to, key));
    try {
      this.#readers.get(key)?.feed(chunk);
    } catch (error) {
      // The answering side of a connection, or one that was there before.
      if (!(error instanceof PeerFormatError)) throw error;
      this.#readers.set(key, undefined);
    }
  }

  #newReader(from: string, to: string, key: string): FrameReader {
    let hasHello = false;
    return new FrameReader(frameBytesMax, (body) => {
      if (body.length === 0) return;
      if (hasHello) this.#frame(from, to, body);
      else if (readHello(body).purpose !== 'control') this.#readers.set(key, undefined);
      hasHello = true;
    });
  }

  #frame(from: string, to: string, body: Uint8Array): void {
    if (from !== this.#leader) return;
    const isHeartbeat = decodePacket(body).frames.some((frame) => frame.kind === 'raft' && frame.message.type === 'heartbeat');
    if (!isHeartbeat) return;
    const now = performance.now();
    const last = this.#last.get(to);
    if (last !== undefined) this.#gaps.push(now - last);
    this.#last.set(to, now);
  }
}
