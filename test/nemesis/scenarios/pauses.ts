import { eventually } from '@conclave/testkit';
import { leaderAndRest, type Scenario } from '../scenario.ts';

/** Members stand still for longer than an election takes, and go on as if nothing had happened. */
export const pauses: readonly Scenario[] = [
  {
    name: 'pause-leader',
    size: 3,
    rounds: 3,
    async run({ cluster, workload, electionMs, rounds, lasts }) {
      for (let round = 0; round < rounds; round++) {
        const { leader, rest } = await leaderAndRest(cluster);
        leader.pause();
        await workload.changesThrough(
          rest.map(({ endpoint }) => endpoint),
          10 * electionMs,
        );
        await lasts(electionMs);
        // It wakes with all that its clients asked meanwhile, and believes that it leads.
        leader.resume();
        await workload.changesThrough(cluster.endpoints, 10 * electionMs);
      }
    },
  },
  {
    name: 'pause-majority',
    size: 5,
    rounds: 2,
    async run({ cluster, workload, electionMs, rounds, lasts }) {
      for (let round = 0; round < rounds; round++) {
        const { leader, rest } = await leaderAndRest(cluster);
        const still = [leader, ...rest.slice(0, 2)];
        for (const member of still) member.pause();
        await lasts(3 * electionMs);
        for (const member of still) member.resume();
        await workload.changesThrough(cluster.endpoints, 10 * electionMs);
      }
    },
  },
  {
    name: 'pause-in-turns',
    size: 3,
    async run({ cluster, workload, electionMs, lasts }) {
      // One wakes as the next falls asleep: nobody may rely on what it was told before.
      for (const member of [...cluster.members, ...cluster.members]) {
        member.pause();
        await lasts(1.5 * electionMs);
        member.resume();
      }
      await eventually('there is a leader', () => cluster.leader(), 10 * electionMs);
      await workload.changesThrough(cluster.endpoints, 10 * electionMs);
    },
  },
];
