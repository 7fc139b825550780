import { Cluster } from '@conclave/protocol';
import { type ClusterMember, type EtcdLine, etcdBinary, eventually, launchCluster, type ProcessCluster, within } from '@conclave/testkit';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Etcdctl } from './etcdctl.ts';

// A cluster of three processes, ours beside etcd's own: a stock etcdctl changes the members of both, and prints the same.

const lines = (['3.5', '3.4'] as const).filter(
  (line) => etcdBinary(line, 'etcd') !== undefined && etcdBinary(line, 'etcdctl') !== undefined,
);

const startMs = 60_000;
/** etcd counts a member as healthy once it has been connected for five seconds. */
const healthyMs = 30_000;

/** Members by the part they had when the script began: who leads is chance, and so are ids and ports. */
type Part = 'leader' | 'follower' | 'other' | 'added';

interface Step {
  /** Whom etcdctl is pointed at. */
  readonly at: Part | 'all';
  /** `$leader` and so on stand for ids, `@leader` for peer URLs, `$NEW` for the id that the last `member add` printed. */
  readonly run: string;
  /** Asked again for as long as this is printed: it passes. */
  readonly while?: string;
}

const unhealthy = 'unhealthy cluster';
const free = (port: number): string => `http://127.0.0.1:${port}`;

class Driven {
  readonly cluster: ProcessCluster;
  readonly #line: EtcdLine;
  readonly #parts = new Map<Part, ClusterMember>();
  readonly #peerUrls = new Map<Part, string>();
  #new = '';

  private constructor(line: EtcdLine, cluster: ProcessCluster) {
    this.#line = line;
    this.cluster = cluster;
  }

  static async start(line: EtcdLine, kind: 'etcd' | 'conclave'): Promise<Driven> {
    const cluster = await launchCluster({ kind, version: line });
    const leader = await cluster.leader();
    const [follower, other] = cluster.members.filter((member) => member !== leader);
    const driven = new Driven(line, cluster);
    await driven.#cast('leader', leader);
    await driven.#cast('follower', follower!);
    await driven.#cast('other', other!);
    return driven;
  }

  async #cast(part: Part, member: ClusterMember): Promise<void> {
    const list = await this.cluster.call(Cluster.methods.memberList, {});
    this.#parts.set(part, member);
    this.#peerUrls.set(part, list.response?.members.find(({ id }) => id === member.id)?.peerUrls[0] ?? '');
  }

  member(part: Part): ClusterMember {
    const member = this.#parts.get(part);
    if (member === undefined) throw new Error(`nobody plays the ${part}`);
    return member;
  }

  /** Starts a fourth member, as a learner. */
  async add(): Promise<void> {
    await this.#cast('added', await this.cluster.add({ isLearner: true }));
  }

  async do(step: Step): Promise<string> {
    let told = '';
    const passed = async (): Promise<boolean> => {
      told = await this.#run(step);
      return step.while === undefined || !told.includes(step.while);
    };
    await eventually(`${step.run} is answered otherwise than ${step.while}`, passed, healthyMs);
    return told;
  }

  async #run({ at, run }: Step): Promise<string> {
    const running = this.cluster.members.filter((member) => member.isRunning);
    const address = at === 'all' ? running.map(({ endpoint }) => endpoint).join(',') : this.member(at).endpoint;
    const filled = run
      .replaceAll('$NEW', this.#new)
      .replaceAll(/\$(\w+)/g, (_, part: string) => hex(this.member(part as Part).id))
      .replaceAll(/@(\w+)/g, (_, part: string) => this.#peerUrls.get(part as Part) ?? '');
    const { stdout, stderr, code } = await new Etcdctl(this.#line, address).run(filled.split(' '));
    this.#new = /^Member ([0-9a-f ]{16}) added/.exec(stdout)?.[1]?.trim() ?? this.#new;
    return `etcdctl ${run}\n${this.#plain(stdout)}\n${this.#plain(stderr)}\nexit ${code}`;
  }

  /** Without what two clusters cannot have in common. The order of members is that of their ids, so lines are put in order. */
  #plain(output: string): string {
    let text = output;
    for (const [part, member] of this.#parts) {
      text = text.replaceAll(this.#peerUrls.get(part)!, `<peer url of ${part}>`).replaceAll(member.endpoint, `<endpoint of ${part}>`);
      text = text.replaceAll(new RegExp(`\\b0*${hex(member.id)}\\b`, 'g'), `<id of ${part}>`);
      text = text.replaceAll(new RegExp(`\\b${member.name}\\b`, 'g'), `<${part}>`);
    }
    return (
      text
        .split('\n')
        .filter((line) => line !== '' && !line.startsWith('{"level"'))
        // An id may be shorter than others, and is filled up with blanks.
        .map((line) => line.replaceAll(/ {2,}/g, ' ').replaceAll(/-{2,}/g, '--'))
        .map((line) =>
          line.replace(/(ETCD_INITIAL_CLUSTER=")([^"]*)/, (_, name: string, all: string) => name + all.split(',').sort().join()),
        )
        .map((line) => line.replaceAll(/\b[0-9a-f]{15,16}\b/g, '<id>').replaceAll(/\b\d+(\.\d+)?(ns|µs|ms|s)\b/g, '<time>'))
        .map((line) =>
          line.replaceAll(/, 3\.\d+\.\d+, [\d.]+ [kM]B, (true|false), (true|false), \d+, \d+, \d+/g, ', <version>, <size>, $1, $2, <raft>'),
        )
        .sort()
        .join('\n')
    );
  }
}

function hex(id: bigint): string {
  return id.toString(16);
}

describe.each(lines)('etcdctl %s', (line) => {
  let theirs: Driven;
  let ours: Driven;

  beforeAll(async () => {
    [theirs, ours] = await Promise.all([Driven.start(line, 'etcd'), Driven.start(line, 'conclave')]);
  }, startMs);
  afterAll(async () => {
    await Promise.all([theirs?.cluster[Symbol.asyncDispose](), ours?.cluster[Symbol.asyncDispose]()]);
  }, startMs);

  async function same(steps: readonly Step[]): Promise<void> {
    for (const step of steps) {
      const [expected, actual] = await Promise.all([theirs.do(step), ours.do(step)]);
      expect(actual).toBe(expected);
    }
  }

  it('is told the same of three members', () =>
    same([
      { at: 'leader', run: 'member list' },
      { at: 'follower', run: 'member list -w table' },
      { at: 'all', run: 'endpoint status' },
      { at: 'other', run: 'endpoint health --cluster' },
    ]));

  // The 3.4 tool names a server by the whole URL here, in the header where only host and port may be, and Node's HTTP/2 refuses that.
  if (line !== '3.4') {
    it('asks all members for their status by the URLs they have published', () =>
      same([{ at: 'other', run: 'endpoint status --cluster' }]));
  }

  it('is refused the same changes in the same words, whomever it asks', async () => {
    for (const at of ['leader', 'follower'] as const) {
      await same([
        { at, run: `member add x --peer-urls=${free(1)},nonsense` },
        { at, run: 'member add x --peer-urls=http://127.0.0.1' },
        { at, run: 'member add x --peer-urls=@follower', while: unhealthy },
        { at, run: 'member update $leader --peer-urls=@follower' },
        { at, run: 'member remove badbad' },
        { at, run: `member update badbad --peer-urls=${free(1)}` },
        { at, run: 'member promote badbad' },
        { at, run: 'member promote $leader' },
        { at, run: 'member promote $follower' },
      ]);
    }
  });

  it('adds a learner that never starts, moves it, and removes it for ever', () =>
    same([
      { at: 'follower', run: `member add x --learner --peer-urls=${free(3)}`, while: unhealthy },
      { at: 'leader', run: 'member list' },
      { at: 'leader', run: `member add y --learner --peer-urls=${free(4)}` },
      { at: 'other', run: 'member promote $NEW' },
      { at: 'leader', run: 'member promote $NEW' },
      { at: 'leader', run: `member update $NEW --peer-urls=${free(5)}` },
      { at: 'follower', run: 'member remove $NEW' },
      { at: 'leader', run: 'member remove $NEW' },
      { at: 'leader', run: 'member list' },
    ]));

  it('adds a learner that starts, and promotes it', async () => {
    await Promise.all([theirs.add(), ours.add()]);
    await same([
      { at: 'leader', run: 'member list' },
      { at: 'all', run: 'endpoint status' },
      { at: 'follower', run: 'member promote $added', while: 'in sync with leader' },
      { at: 'follower', run: 'member promote $added' },
      { at: 'added', run: 'member list' },
      { at: 'added', run: 'put a b' },
      { at: 'added', run: 'get a' },
    ]);
  });

  it('moves the leadership, if it is told who leads', () =>
    same([
      { at: 'other', run: 'move-leader $follower' },
      { at: 'all', run: 'move-leader badbad' },
      { at: 'all', run: 'move-leader $follower' },
      { at: 'all', run: 'endpoint status' },
      { at: 'all', run: 'move-leader $leader' },
      { at: 'all', run: 'endpoint status' },
    ]));

  it('removes a member, which ends as if nothing were wrong', async () => {
    await same([
      { at: 'follower', run: 'member remove $other', while: unhealthy },
      { at: 'leader', run: 'member list' },
      { at: 'leader', run: 'put a c' },
    ]);
    for (const driven of [theirs, ours]) {
      expect((await within('the removed member ends', driven.member('other').exited, startMs)).code).toBe(0);
    }
  });

  it('is refused what a cluster with a member down might not survive', async () => {
    for (const driven of [theirs, ours]) await driven.member('added').kill();
    // Until the others have noticed.
    await eventually('both notice', async () => {
      const told = await Promise.all(
        [theirs, ours].map((driven) => driven.do({ at: 'leader', run: `member add x --peer-urls=${free(6)} --learner` })),
      );
      return told.every((text) => text.includes(unhealthy));
    });
    await same([
      { at: 'leader', run: `member add x --peer-urls=${free(6)}` },
      { at: 'leader', run: 'member remove $follower' },
      { at: 'follower', run: 'member remove $follower' },
      { at: 'leader', run: 'member remove $added' },
      { at: 'leader', run: `member add x --peer-urls=${free(6)}`, while: unhealthy },
      { at: 'follower', run: `member add y --peer-urls=${free(7)}` },
      { at: 'leader', run: 'member remove $follower' },
      { at: 'leader', run: 'member list' },
      { at: 'leader', run: 'member remove $NEW' },
      { at: 'leader', run: 'put a d' },
    ]);
    // It was down when it was removed, and learns it from the others.
    for (const driven of [theirs, ours]) {
      const removed = driven.member('added');
      await expect(removed.restart()).rejects.toThrow();
      const { code } = await within('the removed member ends', removed.exited, startMs);
      // etcd says 0 or 1: the end meets it while it starts.
      if (driven === ours) expect(code, removed.output).toBe(0);
    }
  });
});
