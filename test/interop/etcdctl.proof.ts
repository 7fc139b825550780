import { type EtcdLine, etcdBinary, launchEtcd, launchServer, type RunningProcess } from '@conclave/testkit';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Etcdctl, type Finished } from './etcdctl.ts';

/** What etcdctl is told, and what is typed into it. `$LEASE` is the id that the last `lease grant` printed. */
type Step = string | { readonly run: string; readonly type: string };

const lines = (['3.5', '3.4'] as const).filter(
  (line) => etcdBinary(line, 'etcd') !== undefined && etcdBinary(line, 'etcdctl') !== undefined,
);

/** One server with the tool that drives it. */
class Driven {
  readonly running: RunningProcess;
  readonly tool: Etcdctl;
  #lease = '';

  constructor(line: EtcdLine, running: RunningProcess) {
    this.running = running;
    this.tool = new Etcdctl(line, running.address);
  }

  async do(step: Step): Promise<string> {
    const [command, typed] = typeof step === 'string' ? [step, ''] : [step.run, step.type];
    const args = this.fill(command)
      .split(' ')
      .map((arg) => arg.replaceAll('_', ' '));
    const finished = await this.tool.run(args, this.fill(typed));
    this.#lease = /^lease ([0-9a-f]+) granted/.exec(finished.stdout)?.[1] ?? this.#lease;
    return `etcdctl ${command}\n${this.told(finished)}`;
  }

  fill(text: string): string {
    return text.replaceAll('$LEASE', this.#lease);
  }

  /** What it printed, without what two servers cannot have in common. */
  told({ stdout, stderr, code }: Finished): string {
    return `${this.plain(stdout)}${this.plain(stderr)}exit ${code}`;
  }

  plain(output: string): string {
    return output
      .split('\n')
      .filter((line) => !line.startsWith('{"level"'))
      .join('\n')
      .replaceAll(this.running.address, 'ADDRESS')
      .replaceAll(this.#lease === '' ? '\0' : this.#lease, 'LEASE')
      .replaceAll(
        /"(cluster_id|member_id|raft_term|leader|raftIndex|raftTerm|raftAppliedIndex|dbSize|dbSizeInUse|hash|ID|id|lease|ttl)":\d+/g,
        '"$1":N',
      )
      .replaceAll(/"(ClusterID|MemberID|RaftTerm|Leader|RaftIndex|RaftAppliedIndex|DBSize|DBSizeInUse|ID|Lease)" : \d+/g, '"$1" : N')
      .replaceAll(/\b\d+(\.\d+)?(ns|µs|ms|s)\b/g, 'TIME')
      .replaceAll(/\b[0-9a-f]{15,16}\b/g, 'ID')
      .replaceAll(/http:\/\/(127\.0\.0\.1|localhost):\d+/g, 'URL')
      .replaceAll(/[─-]{2,}/g, '--')
      .replaceAll(/ {2,}/g, ' ');
  }
}

describe.each(lines)('etcdctl %s drives our server as it drives etcd', (line) => {
  let ours: Driven;
  let theirs: Driven;

  beforeAll(async () => {
    ours = new Driven(line, await launchServer());
    theirs = new Driven(line, await launchEtcd({ version: line }));
  });
  afterAll(async () => {
    await ours?.running[Symbol.asyncDispose]();
    await theirs?.running[Symbol.asyncDispose]();
  });

  /** Every step prints the same on both, and ends with the same code. */
  const same = (name: string, ...steps: readonly Step[]): void => {
    it(name, async () => {
      for (const step of steps) {
        const [told, expected] = await Promise.all([ours.do(step), theirs.do(step)]);
        expect(told).toBe(expected);
      }
    });
  };

  same(
    'put',
    'put a 1',
    'put a 2 --prev-kv',
    'put b 1',
    { run: 'put c', type: 'from the input' },
    'put d 4 -w json',
    'put d 5 --prev-kv -w json',
  );
  same(
    'put: ignore_value and ignore_lease',
    'put a --ignore-value',
    'put a 3 --ignore-lease',
    'put nothing --ignore-value',
    'put nothing 1 --ignore-lease',
  );
  same('put: refused', 'put', 'put a 1 --lease=7ead', 'put --ignore-value a 1');
  same(
    'get',
    'get a',
    'get a b',
    'get a z',
    'get nothing',
    'get',
    'get a -w json',
    'get a -w fields',
    'get --prefix a',
    'get --from-key b',
    'get a z --limit=2',
  );
  same(
    'get: options',
    'get --prefix _ --keys-only',
    'get a z --keys-only',
    'get a --print-value-only',
    'get a z --count-only -w fields',
    'get a z --consistency=s',
  );
  same(
    'get: order',
    ...['CREATE', 'KEY', 'MODIFY', 'VALUE', 'VERSION'].flatMap((by) =>
      ['ASCEND', 'DESCEND'].map((order) => `get a z --sort-by=${by} --order=${order}`),
    ),
    'get a z --order=nonsense',
  );
  same('get: revisions', 'get a --rev=2', 'get a --rev=3', 'get a z --rev=4 -w json', 'get a --rev=1000', 'get a --hex');
  same(
    'del',
    'put x1 1',
    'put x2 2',
    'put x3 3',
    'put y 4',
    'del x1',
    'del x1',
    'del --prefix x --prev-kv',
    'del y z',
    'put z1 1',
    'del --from-key z',
    'del',
    'del nothing -w json',
  );
  same(
    'txn',
    { run: 'txn', type: 'value("a") = "3"\n\nput t 1\nget a\n\nput t 2\n\n' },
    { run: 'txn', type: 'mod("a") > "1000"\nver("a") = "1"\n\nput t 1\n\nput t 2\nget t\ndel t\n\n' },
    { run: 'txn -i', type: 'create("nothing") = "0"\n\nput t new\nget t\n\nget t\n\n' },
    { run: 'txn -i', type: '\n\nget a b\ndel t --prev-kv\n\n\n' },
    { run: 'txn', type: 'version("a") > "0"\n\nget a z --limit=2\n\n\n' },
    { run: 'txn -w json', type: 'c("a") < "3"\n\nput t json\nget t\n\n\n' },
    { run: 'txn', type: 'value("nothing") != "x"\n\nput t 1\n\nput t 2\n\n' },
    { run: 'txn', type: '\n\nput t 1\nput t 2\n\n\n' },
    { run: 'txn', type: 'nonsense\n\nput t 1\n\n\n' },
  );
  same(
    'lease',
    'lease list',
    'lease grant 600',
    'put l1 1 --lease=$LEASE',
    'lease list',
    'lease timetolive $LEASE',
    'lease timetolive $LEASE --keys',
    'lease timetolive $LEASE --keys -w json',
    'put l2 2 --lease=$LEASE',
    'lease keep-alive --once $LEASE',
    'get l1 -w json',
    'put l2 3 --ignore-lease',
    'lease revoke $LEASE',
    'get --prefix l',
    'lease timetolive $LEASE',
    'lease revoke $LEASE',
    'lease keep-alive --once $LEASE',
    'lease grant',
    'lease grant nonsense',
    'lease list',
  );
  same(
    'compaction',
    'compaction 5',
    'get a --rev=4',
    'get a --rev=5',
    'compaction 5',
    'compaction 8 --physical',
    'compaction 100000',
    'compaction',
    'watch a --rev=2',
  );
  same('member list', 'member list', 'member list -w json', 'member list -w table', 'member list -w fields');
  same('endpoint', 'endpoint health', 'endpoint health --cluster', 'endpoint health -w json');
  same('the rest that reads', 'alarm list', 'alarm disarm', 'user list', 'role list', ...(line === '3.4' ? [] : ['auth status']));
  same('what etcdctl itself refuses', 'nonsense', 'get a b c', 'put a b c', '--nonsense get a', 'get a --sort-by=nonsense');

  it('endpoint status', async () => {
    const { stdout, code } = await ours.tool.run(['endpoint', 'status']);
    expect(code).toBe(0);
    // Endpoint, id, version, size, is leader, is learner, term, index, applied index, errors.
    expect(stdout).toMatch(/^127\.0\.0\.1:\d+, [0-9a-f]{15,16}, \d+\.\d+\.\d+, \d+(\.\d+)? [kM]?B, true, false, \d+, \d+, \d+, \n$/);
    const [told, expected] = await Promise.all(
      [ours, theirs].map(async (one) =>
        Object.keys(
          (JSON.parse((await one.tool.run(['endpoint', 'status', '-w', 'json'])).stdout) as { Status: object }[])[0]?.Status ?? {},
        ),
      ),
    );
    expect(told).toEqual(expect.arrayContaining(expected ?? []));
    // etcdctl 3.4 sends the whole URL as :authority here, which Node's HTTP/2 refuses before any code of ours sees it.
    if (line !== '3.4') expect((await ours.tool.run(['endpoint', 'status', '--cluster', '-w', 'table'])).code).toBe(0);
  });

  it('endpoint hashkv', async () => {
    const { stdout, code } = await ours.tool.run(['endpoint', 'hashkv']);
    expect([code, /^127\.0\.0\.1:\d+, \d+\n$/.test(stdout)]).toEqual([0, true]);
  });

  it('watch', async () => {
    const outputs = await Promise.all(
      [ours, theirs].map(async (one) => {
        await using watch = one.tool.start(['watch', 'w', '--prefix', '--prev-kv', '--rev', '0']);
        await using command = one.tool.start([
          'watch',
          'w1',
          '--',
          'sh',
          '-c',
          'echo "$ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_KEY $ETCD_WATCH_VALUE"',
        ]);
        // A watch says nothing when it begins: it is there when it tells of a write.
        for (const [running, key] of [
          [watch, 'w0'],
          [command, 'w1'],
        ] as const) {
          for (let at = 0; running.stdout === ''; at++) {
            await one.tool.run(['put', key, 'begun']);
            if (at > 50) throw new Error('the watch never began');
          }
        }
        await one.tool.run(['del', '--prefix', 'w']);
        await watch.prints('DELETE\nw1');
        await command.prints('"DELETE" "w1"');
        const begun = [watch.stdout.length, command.stdout.length] as const;
        await one.tool.run(['put', 'w2', '1']);
        await one.tool.run(['put', 'w1', '2']);
        await one.tool.run(['put', 'w1', '3']);
        await one.tool.run(['del', '--prefix', 'w']);
        await watch.prints('DELETE\nw2');
        await command.prints('"PUT" "w1" "3"\nDELETE\nw1\n\n"DELETE" "w1" ""\n');
        return [watch.stdout.slice(begun[0]), command.stdout.slice(begun[1]), await watch.interrupt()];
      }),
    );
    expect(outputs[0]).toEqual(outputs[1]);
    expect(outputs[0]?.[0]).toContain('PUT\nw1\n2\nw1\n3\n');
  });

  it('watch of history', async () => {
    const outputs = await Promise.all(
      [ours, theirs].map(async (one) => {
        for (const value of ['1', '2', '3']) await one.tool.run(['put', 'h', value]);
        const { stdout } = await one.tool.run(['get', 'h', '-w', 'json']);
        const { header } = JSON.parse(stdout) as { header: { revision: number } };
        await using watch = one.tool.start(['watch', 'h', '--prev-kv', '--rev', `${header.revision - 1}`]);
        await watch.prints('\n3\n');
        return watch.stdout;
      }),
    );
    expect(outputs).toEqual(['PUT\nh\n1\nh\n2\nPUT\nh\n2\nh\n3\n', 'PUT\nh\n1\nh\n2\nPUT\nh\n2\nh\n3\n']);
  });

  it('watch, interactive', async () => {
    const outputs = await Promise.all(
      [ours, theirs].map(async (one) => {
        await using watch = one.tool.start(['watch', '-i']);
        const { stdout } = await one.tool.run(['put', 'i0', 'first', '-w', 'json']);
        const { revision } = (JSON.parse(stdout) as { header: { revision: number } }).header;
        watch.type(`watch i0 --rev=${revision}\n`);
        await watch.prints('first');
        watch.type(`watch i1 i9 --rev=${revision}\n`);
        watch.type('progress\n');
        await one.tool.run(['put', 'i1', 'second']);
        await watch.prints('second');
        await one.tool.run(['del', 'i0']);
        await watch.prints('DELETE\ni0');
        return watch.stdout.replaceAll(/progress notify: \d+\n/g, '');
      }),
    );
    expect(outputs[0]).toBe(outputs[1]);
  });

  it('lease keep-alive goes on', async () => {
    const { stdout } = await ours.tool.run(['lease', 'grant', '3']);
    const id = /lease ([0-9a-f]+) granted/.exec(stdout)?.[1] ?? '';
    await using keeping = ours.tool.start(['lease', 'keep-alive', id]);
    await keeping.prints(`lease ${id} keepalived with TTL(3)\nlease ${id} keepalived with TTL(3)\n`);
    expect((await ours.tool.run(['lease', 'list'])).stdout).toContain(id);
    await keeping.interrupt();
  });

  it('lock: one holds, the next waits, a command runs under it', async () => {
    await using first = ours.tool.start(['lock', 'mutex']);
    await first.prints('mutex/');
    await using second = ours.tool.start(['lock', 'mutex']);
    const { stdout: held } = await ours.tool.run(['lock', 'other', '--', 'sh', '-c', 'echo "$ETCD_LOCK_KEY"; exit 7']);
    expect(held).toMatch(/^other\/[0-9a-f]+\n/);
    expect(second.stdout).toBe('');
    await first.interrupt();
    await second.prints('mutex/');
    await second.interrupt();
    expect((await ours.tool.run(['get', '--prefix', 'mutex', '--keys-only'])).stdout.trim()).toBe('');
  });

  it('lock: the code of the command is the code of etcdctl', async () => {
    const codes = await Promise.all(
      [ours, theirs].map(async (one) => (await one.tool.run(['lock', 'coded', '--', 'sh', '-c', 'exit 7'])).code),
    );
    expect(codes[0]).toBe(codes[1]);
  });

  it('elect: the first leads, the next follows it, a listener is told', async () => {
    await using first = ours.tool.start(['elect', 'election', 'one']);
    await first.prints('one');
    await using second = ours.tool.start(['elect', 'election', 'two']);
    await using listener = ours.tool.start(['elect', '-l', 'election']);
    await listener.prints('one');
    expect(second.stdout).toBe('');
    await first.interrupt();
    await second.prints('two');
    await listener.prints('two');
    await second.interrupt();
  });
});

describe.skipIf(etcdBinary('3.5', 'etcdctl') === undefined)('etcdctl check perf', () => {
  it('is passed by our server at the small load', { timeout: 120_000 }, async () => {
    await using server = await launchServer();
    const { stdout, stderr } = await new Etcdctl('3.5', server.address).run(['check', 'perf', '--load', 's'], '', 100_000);
    const told = `${stdout}${stderr}`.split(/[\r\n]/).filter((one) => /^(PASS|FAIL|Slowest|Stddev|Throughput)/.test(one));
    console.log(told.join('\n'));
    expect(told.some((one) => one.startsWith('PASS: Throughput'))).toBe(true);
    expect(told.some((one) => one.includes('errors'))).toBe(false);
  });
});
