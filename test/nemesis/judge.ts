import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Maintenance } from '@conclave/protocol';
import {
  checkHashes,
  checkHistory,
  eventually,
  type Finding,
  type HashSample,
  type History,
  historyLines,
  type ProcessCluster,
} from '@conclave/testkit';

export interface Case {
  /** For the files that are kept when something is wrong. */
  readonly name: string;
  readonly cluster: ProcessCluster;
  readonly history: History;
  readonly settledRevision: number;
  /** What the store held before the history began. Default: nothing, at revision 1. */
  readonly initial?: NonNullable<Parameters<typeof checkHistory>[1]>['initial'];
  /** Members may have ended by themselves. */
  readonly mayEnd?: boolean | undefined;
}

const shownMax = 10;
const wordsOfFailure = /^.*(the member has failed|uncaught exception|unhandled rejection|panic).*$/m;

/** What is wrong with what the clients saw, with what the members hold, and with what they said. Nothing: nothing. */
export async function judge({ name, cluster, history, settledRevision, initial, mayEnd = false }: Case): Promise<string[]> {
  const checked = checkHistory(history, { settledRevision, ...(initial !== undefined && { initial }) });
  const findings: Finding[] = [...checked, ...(await compareMembers(cluster))];
  const problems = findings
    .slice(0, shownMax)
    .map(({ rule, what, context }) => `[${rule}] ${what}\n${context.map((line) => `      ${line}`).join('\n')}`);
  if (findings.length > 0)
    problems.push(`${findings.length} findings; the history is in ${keep(`${name}.jsonl`, [...historyLines(history)].join('\n'))}`);
  for (const member of cluster.members) {
    const last = mayEnd ? undefined : wordsOfFailure.exec(member.output)?.[0];
    if (last !== undefined) problems.push(`${member.name} said: ${last.slice(0, 1000)}`);
  }
  return problems;
}

/** Writes what the members last said to files, and says where. */
export function keepWords(name: string, cluster: ProcessCluster): string {
  const files = cluster.members.map((member) => keep(`${name}.${member.name}.log`, member.output));
  return `what the members said is in ${files.join(', ')}`;
}

/** The members hold the same data. They may need a moment: a follower applies what is committed when it hears of it. */
async function compareMembers(cluster: ProcessCluster): Promise<Finding[]> {
  let samples: readonly HashSample[] = [];
  const areEqual = async (): Promise<boolean> => {
    samples = (await Promise.all(cluster.members.map(hashOf))).flatMap((sample) => sample ?? []);
    const different = new Set(samples.map(({ hash, revision, compactRevision }) => `${hash} ${revision} ${compactRevision}`));
    return samples.length === cluster.members.length && different.size === 1;
  };
  try {
    await eventually('all members hold the same', areEqual, 10_000);
    return [];
  } catch {
    const different = checkHashes(samples);
    const context = samples.map((one) => `${one.member}: ${one.hash} at ${one.revision}, compacted at ${one.compactRevision}`);
    return different.length > 0 ? different : [{ rule: 'equal-hashes', what: 'the members never came to hold the same', context }];
  }
}

async function hashOf(member: ProcessCluster['members'][number]): Promise<HashSample | undefined> {
  const { response } = await member.call(Maintenance.methods.hashKv, {});
  if (response === undefined) return undefined;
  const { hash, compactRevision, header } = response;
  return { member: member.name, revision: header?.revision ?? 0, compactRevision, hash };
}

function keep(name: string, text: string): string {
  const dir = '.cache/nemesis';
  mkdirSync(dir, { recursive: true });
  const path = join(dir, name);
  writeFileSync(path, text);
  return path;
}
