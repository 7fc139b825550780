import { type ClusterMember, eventually, within } from '@conclave/testkit';
import { leaderAndRest, linksOf, type Scenario, type Stage } from '../scenario.ts';

/** Members come and go, and come back too late for the log. */
export const members: readonly Scenario[] = [
  { name: 'replace-members', size: 3, rounds: 50, roundsInShort: 4, run: replace },
  {
    name: 'snapshot-while-compacting',
    size: 3,
    rounds: 6,
    roundsInShort: 2,
    oursOnly: 'a stock etcd keeps 5,000 entries for those that lag',
    workload: { historyKept: 60, padding: 2000 },
    prepare: () => ({ cluster: { hasLinks: true, flags: ['--snapshot-count', '20', '--snapshot-catchup-entries', '10'] } }),
    run: leaveBehind,
  },
];

/**
 * The oldest member is replaced, whoever it is, in one of three ways: a new one comes first as a learner; or the old one is dead and goes first; or it
 * goes while it runs. What was removed never comes back.
 */
async function replace(stage: Stage): Promise<void> {
  const { cluster, workload, electionMs, rounds, note } = stage;
  const tookMs: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const begunAt = performance.now();
    const old = cluster.members[0] as ClusterMember;
    if (round % 3 === 0) {
      const learner = await cluster.add({ isLearner: true });
      await cluster.promote(learner);
      await welcome(stage, learner);
      await leave(stage, old);
    } else {
      if (round % 3 === 1) await old.kill();
      await leave(stage, old);
      await welcome(stage, await cluster.add());
    }
    if (round < 3) await mustStayOut(old);
    await workload.changesThrough(cluster.endpoints, 10 * electionMs);
    tookMs.push(performance.now() - begunAt);
  }
  const sorted = tookMs.toSorted((a, b) => a - b);
  note(
    `${rounds} members replaced, each in ${sorted[Math.floor(rounds / 2)]?.toFixed(0)} ms (median), at most ${sorted.at(-1)?.toFixed(0)} ms`,
  );
}

async function welcome({ workload }: Stage, member: ClusterMember): Promise<void> {
  await workload.addMember(member.endpoint);
}

async function leave({ cluster, workload }: Stage, member: ClusterMember): Promise<void> {
  workload.removeMember(member.endpoint);
  await cluster.remove(member);
}

/** A removed member that is started once more learns from its own log or, if it was dead when it was removed, from the others, that it has no part any more. */
async function mustStayOut(removed: ClusterMember): Promise<void> {
  // It may say that it serves before it knows better, or never come to that.
  removed.restart().catch(() => {});
  await eventually(`${removed.name} is started again`, () => removed.isRunning);
  await within(`${removed.name}, removed and started again, ends`, removed.exited, 20_000);
}

/** One member misses so much, again and again, that only a snapshot helps, taken and put in place while history is compacted away. */
async function leaveBehind({ cluster, workload, electionMs, rounds, note }: Stage): Promise<void> {
  for (let round = 0; round < rounds; round++) {
    const { leader, rest } = await leaderAndRest(cluster);
    // In turns the one that is left behind was dead, or cut off and still asked by clients; in turns it is the former leader.
    const behind = round % 4 < 2 ? (rest[0] as ClusterMember) : leader;
    const others = cluster.members.filter((member) => member !== behind);
    if (round % 2 === 0) await behind.kill();
    else
      linksOf(cluster).partition(
        [behind.name],
        others.map(({ name }) => name),
      );
    await workload.changesThrough(
      others.map(({ endpoint }) => endpoint),
      10 * electionMs,
    );
    await workload.changes(200);
    linksOf(cluster).heal({ isLost: true });
    if (round % 2 === 0) await behind.restart();
    await workload.changesThrough(cluster.endpoints, 20 * electionMs);
  }
  const installed = cluster.members.reduce((sum, { output }) => sum + output.split('a member has its snapshot').length - 1, 0);
  note(`${installed} snapshots were put in place`);
  if (installed === 0) throw new Error('invalid: no snapshot was ever needed');
}
