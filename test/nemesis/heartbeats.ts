import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { decodePacket } from '@conclave/server';
import { eventually, launchCluster, within } from '@conclave/testkit';
import { FrameReader } from '../../packages/server/src/transport/frame.ts';
import { linksOf, type Measurement, type MeasurementReport } from './scenario.ts';

const millionKeys = 1_000_000;
const samplesMin = 1200;
const fillMsMax = 10 * 60_000;
const frameBytesMax = 128 * 1024 * 1024;
/** In a hello: where the byte is that says what the connection is for, and what it says when it is for heartbeats. */
const purposeAt = 9;
const control = 0;

/**
 * How regularly heartbeats reach the followers while a million keys are read and the largest requests are written: seen on the wires between the
 * members, by the frames that are heartbeats and nothing else.
 */
export const heartbeats: Measurement = {
  name: 'heartbeats',
  size: 3,
  oursOnly: "a stock etcd's wires carry another format",
  async measure({ heartbeatMs, electionMs }): Promise<MeasurementReport> {
    const problems: string[] = [];
    await using cluster = await launchCluster({ kind: 'conclave', size: 3, heartbeatMs, electionMs, hasLinks: true });
    using listener = new HeartbeatListener();
    const links = linksOf(cluster);
    links.tap((from, to, chunk, connection) => listener.hear(`${from}>${to}`, chunk, connection));
    // What is heard is understood from a connection's first byte on.
    links.partition(cluster.names, cluster.names, 'cut');
    links.heal();
    const load = startLoad(cluster.endpoints);
    try {
      await within('a million keys are there', messageOf(load, 'filled'), fillMsMax);
      const before = await cluster.leader();
      const term = (await before.status(10_000))?.raftTerm;
      listener.begin();
      await eventually('enough heartbeats were seen', () => listener.gaps.length >= samplesMin, samplesMin * heartbeatMs * 2);
      const gaps = listener.gaps.toSorted((a, b) => a - b);
      load.send('stop');
      const [done] = (await within('the load ends', once(load, 'message'), 180_000)) as [Readonly<Record<string, number>>];
      const after = await cluster.leader();
      const termAfter = (await after.status(10_000))?.raftTerm;
      if (termAfter !== term) problems.push(`there was an election: term ${term} became ${termAfter}`);
      const at = (share: number): number => gaps[Math.min(gaps.length - 1, Math.floor(gaps.length * share))] ?? Number.POSITIVE_INFINITY;
      if (at(0.999) > 2 * heartbeatMs)
        problems.push(`p99.9 of the gaps is ${at(0.999).toFixed(0)} ms, more than two intervals of ${heartbeatMs} ms`);
      if ((done['ranges'] ?? 0) < 3 || (done['writes'] ?? 0) < 10) problems.push('invalid: the load did next to nothing');
      const shown = [0.5, 0.99, 0.999, 1].map((share) => `p${share * 100} ${at(share).toFixed(0)} ms`).join(', ');
      if (listener.unheard > gaps.length / 20)
        problems.push(`invalid: the machine is too busy to tell (${listener.unheard} gaps were not heard)`);
      const notes = [
        `${gaps.length} gaps between heartbeats: ${shown}; ${listener.unheard} more while the listener itself had no time`,
        `meanwhile: ${JSON.stringify(done)}`,
      ];
      return { problems, notes };
    } finally {
      load.kill('SIGKILL');
    }
  },
};

function startLoad(endpoints: readonly string[]): ChildProcess {
  const load = fork(fileURLToPath(new URL('./heartbeat-load.ts', import.meta.url)), [String(millionKeys), ...endpoints]);
  process.once('exit', () => load.kill('SIGKILL'));
  return load;
}

async function messageOf(load: ChildProcess, wanted: string): Promise<void> {
  const [message] = (await Promise.race([once(load, 'message'), once(load, 'exit').then(() => ['the load has ended'])])) as [unknown];
  if (message !== wanted) throw new Error(`the load said ${JSON.stringify(message)}`);
}

/** A listener that was later than this by its own timer heard nothing of what went on: the machine had no time for it, nor for anybody else. */
const listenerLateMs = 40;

class HeartbeatListener implements Disposable {
  readonly #connections = new Map<string, ConnectionReader>();
  readonly #last = new Map<string, number>();
  readonly #timer: NodeJS.Timeout;
  #gaps: number[] = [];
  #lateAt = 0;
  #unheard = 0;

  constructor() {
    let last = performance.now();
    this.#timer = setInterval(() => {
      const at = performance.now();
      if (at - last > listenerLateMs) this.#lateAt = at;
      last = at;
    }, 5);
  }

  /** Milliseconds between one heartbeat and the next on the same way. */
  get gaps(): readonly number[] {
    return this.#gaps;
  }

  /** Gaps during which this process itself stood still. */
  get unheard(): number {
    return this.#unheard;
  }

  /** From now on. */
  begin(): void {
    this.#gaps = [];
    this.#unheard = 0;
    this.#last.clear();
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  hear(way: string, chunk: Buffer, connection: number): void {
    const name = `${connection} ${way}`;
    let reader = this.#connections.get(name);
    if (reader === undefined) {
      // Whoever dialled says what the connection is for; the answer on the same connection has the other direction.
      reader = new ConnectionReader(this.#purposeOf(connection), () => this.#heartbeat(way));
      this.#connections.set(name, reader);
    }
    reader.feed(chunk);
  }

  #purposeOf(connection: number): ConnectionReader | undefined {
    for (const [name, reader] of this.#connections) if (name.startsWith(`${connection} `)) return reader;
    return undefined;
  }

  #heartbeat(way: string): void {
    const at = performance.now();
    const last = this.#last.get(way);
    if (last !== undefined && this.#lateAt > last) this.#unheard++;
    else if (last !== undefined) this.#gaps.push(at - last);
    this.#last.set(way, at);
  }
}

/** One direction of one connection between members. */
class ConnectionReader {
  readonly #dialler: ConnectionReader | undefined;
  readonly #frames: FrameReader;
  readonly #onHeartbeat: () => void;
  #hasGreeted = false;
  #isControl: boolean | undefined;

  constructor(dialler: ConnectionReader | undefined, onHeartbeat: () => void) {
    this.#dialler = dialler;
    this.#onHeartbeat = onHeartbeat;
    this.#frames = new FrameReader(frameBytesMax, (body) => this.#onFrame(body));
  }

  get isControl(): boolean {
    return this.#dialler?.isControl ?? this.#isControl ?? true;
  }

  /** What carries no heartbeats is not looked at: it is much. */
  feed(chunk: Buffer): void {
    if (this.isControl) this.#frames.feed(chunk);
  }

  #onFrame(body: Uint8Array): void {
    if (!this.#hasGreeted) {
      this.#hasGreeted = true;
      if (this.#dialler === undefined) this.#isControl = body[purposeAt] === control;
      return;
    }
    if (body.length === 0) return;
    const { frames } = decodePacket(body);
    for (const frame of frames) if (frame.kind === 'raft' && frame.message.type === 'heartbeat') this.#onHeartbeat();
  }
}
