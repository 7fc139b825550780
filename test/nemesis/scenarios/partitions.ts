import type { ClusterMember, PeerLinks, ProcessCluster } from '@conclave/testkit';
import { leaderAndRest, linksOf, type Scenario } from '../scenario.ts';

interface Sides {
  readonly leader: string;
  readonly rest: readonly string[];
}

/** Wires between members that carry nothing, or only one way; the members' clients reach them all the while. */
export const partitions: readonly Scenario[] = [
  // The old leader still has clients. It may answer none of them with what it thinks that it knows.
  partition('partition-leader', 3, (links, { leader, rest }) => links.partition([leader], rest)),
  partition('partition-leader-cut', 3, (links, { leader, rest }) => links.partition([leader], rest, 'cut')),
  partition('partition-minority-of-5', 5, (links, { leader, rest }) => links.partition([leader, ...rest.slice(0, 1)], rest.slice(1))),
  // It hears everybody, and nobody hears it.
  partition('mute-leader', 3, (links, { leader, rest }) => links.block([leader], rest)),
  // It goes on sending heartbeats, and hears no answer.
  partition('deaf-leader', 3, (links, { leader, rest }) => links.block(rest, [leader])),
  // It must not unseat the leader with elections that it cannot win, nor when it is back.
  partition('deaf-follower', 3, (links, { leader, rest }) => links.block([leader, ...rest.slice(1)], rest.slice(0, 1))),
  // Every one sees a majority, and no two the same one.
  partition('majorities-ring', 5, (links, { leader, rest }) => {
    const ring = [leader, ...rest];
    ring.forEach((name, at) => {
      const far = [ring[(at + 2) % 5] as string, ring[(at + 3) % 5] as string];
      links.partition([name], far);
    });
  }),
  // The leader and one other do not reach each other; both reach the third.
  partition('partial-partition', 3, (links, { leader, rest }) => links.partition([leader], rest.slice(0, 1))),
  {
    name: 'slow-links',
    size: 3,
    prepare: () => ({ cluster: { hasLinks: true } }),
    async run({ cluster, workload, electionMs }) {
      for (const from of cluster.names) for (const to of cluster.names) linksOf(cluster).setRule(from, to, { delayMs: 50, jitterMs: 50 });
      await workload.changes(200);
      linksOf(cluster).heal();
      await workload.changesThrough(cluster.endpoints, 10 * electionMs);
    },
  },
];

function partition(name: string, size: number, apply: (links: PeerLinks, sides: Sides) => void): Scenario {
  return {
    name,
    size,
    rounds: 2,
    prepare: () => ({ cluster: { hasLinks: true } }),
    async run({ cluster, workload, electionMs, rounds, lasts, note }) {
      const gaps: number[] = [];
      for (let round = 0; round < rounds; round++) {
        const { leader, rest } = await leaderAndRest(cluster);
        apply(linksOf(cluster), { leader: leader.name, rest: rest.map((member) => member.name) });
        const begunAt = performance.now();
        await progress(cluster, workload.changes(50, 15 * electionMs));
        gaps.push(performance.now() - begunAt);
        await lasts(3 * electionMs);
        // What the wires held arrives late, or never.
        linksOf(cluster).heal({ isLost: round % 2 === 1 });
        await workload.changesThrough(cluster.endpoints, 10 * electionMs);
      }
      note(`50 changes took ${gaps.map((ms) => `${ms.toFixed(0)} ms`).join(', ')}`);
    },
  };
}

/** Somewhere a majority is left in all of these, and must find itself. */
async function progress({ members }: ProcessCluster, changes: Promise<void>): Promise<void> {
  try {
    await changes;
  } catch (error) {
    const said = await Promise.all(members.map((member: ClusterMember) => member.status()));
    const views = said.map((status, at) => `${members[at]?.name}: term ${status?.raftTerm}, leader ${status?.leader.toString(16)}`);
    throw new Error(`no majority found itself (${views.join('; ')})`, { cause: error });
  }
}
