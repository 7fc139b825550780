import { createServer } from 'node:net';
import { join } from 'node:path';
import { Maintenance, type StatusResponse } from '@conclave/protocol';
import { systemRuntime } from '@conclave/wire';
import { grpcTransport } from '@conclave/wire/grpc-client';
import { Member } from './member.ts';

/** Three `conclave-server` processes that make up one cluster. */
export class Cluster {
  readonly members: readonly Member[];

  private constructor(members: readonly Member[]) {
    this.members = members;
  }

  /** Resolves when all three serve. */
  static async start(dir: string): Promise<Cluster> {
    const names = ['m1', 'm2', 'm3'];
    const ports = await freePorts(2 * names.length);
    const places = names.map((name, at) => ({
      name,
      dataDir: join(dir, name),
      clientPort: ports[2 * at] ?? 0,
      peerUrl: `http://127.0.0.1:${ports[2 * at + 1] ?? 0}`,
    }));
    const initialCluster = places.map(({ name, peerUrl }) => `${name}=${peerUrl}`).join();
    const cluster = new Cluster(places.map((place) => new Member({ ...place, initialCluster })));
    await Promise.all(cluster.members.map((member) => member.start()));
    return cluster;
  }

  get endpoints(): readonly string[] {
    return this.members.map(({ endpoint }) => endpoint);
  }

  /** The member that leads, by what the members themselves say; asks until they agree. */
  async leader(): Promise<Member> {
    for (;;) {
      const all = await Promise.all(
        this.members.filter(({ isRunning }) => isRunning).map(async (member) => ({ member, status: await statusOf(member) })),
      );
      const leaders = new Set(all.map(({ status }) => status?.leader));
      const leading = all.find(({ status }) => status !== undefined && status.leader !== 0n && status.leader === status.header?.memberId);
      if (leaders.size === 1 && leading !== undefined) return leading.member;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  async stop(): Promise<void> {
    await Promise.all(this.members.map((member) => member.stop()));
  }

  /** Lets the processes live on after this one. */
  release(): void {
    for (const member of this.members) member.release();
  }
}

async function statusOf({ endpoint }: Member): Promise<StatusResponse | undefined> {
  const runtime = systemRuntime();
  const connection = grpcTransport({ runtime })(endpoint);
  try {
    return await new Promise((resolve) => {
      const { path, input, output } = Maintenance.methods.status;
      const deadline = runtime.monotonic() + 1000;
      connection.unary(path, input.encode({}), { deadline }, (_end, answer) => resolve(answer && output.decode(answer)));
    });
  } finally {
    connection.close();
  }
}

/** Ports that are free now. All are held until the last is known, or the same one could be given twice. */
async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer());
  const ports = await Promise.all(
    servers.map(
      (server) =>
        new Promise<number>((resolve, reject) => {
          server.once('error', reject);
          server.listen(0, '127.0.0.1', () => {
            const address = server.address();
            resolve(typeof address === 'object' && address !== null ? address.port : 0);
          });
        }),
    ),
  );
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}
