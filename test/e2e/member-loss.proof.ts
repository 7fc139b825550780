import { existsSync } from 'node:fs';
import { type ClusterOptions, etcdBinary, serverScript } from '@conclave/testkit';
import { describe, expect, test } from 'vitest';
import { type Loss, loseMember } from './member-loss.ts';

const targets: readonly { readonly name: string; readonly cluster: ClusterOptions; readonly isThere: boolean }[] = [
  { name: 'conclave-server', cluster: { kind: 'conclave' }, isThere: existsSync(serverScript()) },
  { name: 'etcd 3.5', cluster: { kind: 'etcd', version: '3.5' }, isThere: etcdBinary('3.5', 'etcd') !== undefined },
];
const losses: readonly Loss[] = ['killed', 'paused', 'cut off from its clients', 'cut off from the other members'];

describe.each(targets.filter(({ isThere }) => isThere))('with three members of $name', ({ name, cluster }) => {
  test.each(
    losses.flatMap((loss) => [
      { loss, who: 'a follower' },
      { loss, who: 'the leader' },
    ]),
  )('$who is $loss: no read fails, 99 of 100 take less than 2 s, watches lag less than 3 s', async ({ loss, who }) => {
    const report = await loseMember(cluster, loss, who === 'the leader', 10_000);
    const { reads, p99Ms, maxMs, lagMs, events } = report;
    console.log(
      `${name}, ${who} ${loss}: ${reads} reads, p99 ${p99Ms.toFixed(0)} ms, at most ${maxMs.toFixed(0)} ms; ${events} events, lag at most ${lagMs.toFixed(0)} ms`,
    );
    expect(report.errors).toEqual([]);
    expect(p99Ms).toBeLessThan(2_000);
    expect(lagMs).toBeLessThan(3_000);
  });
});
