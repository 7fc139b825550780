import type { ClusterMember } from '@conclave/testkit';
import { leaderAndRest, type Scenario, type Stage } from '../scenario.ts';

/** Members end without a warning, and start again. */
export const kills: readonly Scenario[] = [
  scenario('kill-follower', 3, ({ rest }) => rest.slice(0, 1)),
  scenario('kill-leader', 3, ({ leader }) => [leader]),
  scenario('kill-majority', 3, ({ leader, rest }) => [leader, ...rest.slice(0, 1)]),
  scenario('kill-all', 3, ({ leader, rest }) => [leader, ...rest]),
  scenario('kill-leader-of-5', 5, ({ leader }) => [leader]),
  scenario('kill-majority-of-5', 5, ({ leader, rest }) => [leader, ...rest.slice(0, 2)]),
  { name: 'rolling-restart', size: 3, run: restartOneByOne },
];

function scenario(
  name: string,
  size: number,
  victimsOf: (cluster: { readonly leader: ClusterMember; readonly rest: readonly ClusterMember[] }) => readonly ClusterMember[],
): Scenario {
  return {
    name,
    size,
    rounds: 3,
    async run({ cluster, workload, electionMs, rounds, lasts, note }) {
      const waits: number[] = [];
      for (let round = 0; round < rounds; round++) {
        const victims = victimsOf(await leaderAndRest(cluster));
        const others = cluster.members.filter((member) => !victims.includes(member));
        await Promise.all(victims.map((member) => member.kill()));
        const killedAt = performance.now();
        if (victims.length * 2 < cluster.members.length) {
          await workload.changesThrough(
            others.map(({ endpoint }) => endpoint),
            10 * electionMs,
          );
          waits.push(performance.now() - killedAt);
        } else {
          // Nothing can be served; clients try in vain for a while.
          await lasts(electionMs);
        }
        await Promise.all(victims.map((member) => member.restart()));
        await workload.changesThrough(cluster.endpoints, 10 * electionMs);
      }
      if (waits.length > 0) note(`served by all others again after ${waits.map((ms) => `${ms.toFixed(0)} ms`).join(', ')}`);
    },
  };
}

/** As for an upgrade: every member is told to stop, and hands over what it led. */
async function restartOneByOne({ cluster, workload, electionMs, note }: Stage): Promise<void> {
  const waits: number[] = [];
  for (const member of cluster.members) {
    const others = cluster.members.filter((other) => other !== member).map(({ endpoint }) => endpoint);
    await member.stop();
    const stoppedAt = performance.now();
    await workload.changesThrough(others, 10 * electionMs);
    waits.push(performance.now() - stoppedAt);
    await member.restart();
    await workload.changesThrough(cluster.endpoints, 10 * electionMs);
  }
  note(`served by the others after ${waits.map((ms) => `${ms.toFixed(0)} ms`).join(', ')}`);
}
