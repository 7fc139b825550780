import type { FencedWrite, Hold } from '../history.ts';
import type { Finding } from './finding.ts';

/**
 * Exclusion, as far as a lock over a network can give it: no two holders who both believe in their hold at one time, and tokens that grow from
 * holder to holder and never come back. What a token lets through at a resource outside is checked by {@link checkFencing}.
 */
export function checkHolds(holds: readonly Hold[]): Finding[] {
  const findings: Finding[] = [];
  for (const [name, ofName] of groupBy(holds, (hold) => hold.name)) {
    const byStart = ofName.toSorted((a, b) => a.from - b.from || a.token - b.token);
    findings.push(...overlaps(name, byStart), ...tokenOrder(name, byStart));
  }
  return findings;
}

/** A resource that checks tokens accepts none that is lower than one it has seen. */
export function checkFencing(writes: readonly FencedWrite[]): Finding[] {
  const findings: Finding[] = [];
  for (const [name, ofName] of groupBy(writes, (write) => write.name)) {
    let highest: FencedWrite | undefined;
    for (const write of ofName) {
      if (highest !== undefined && write.token < highest.token) {
        findings.push({
          rule: 'fencing',
          what: `${name} accepted token ${write.token} after token ${highest.token}`,
          context: [showWrite(highest), showWrite(write)],
        });
      } else highest = write;
    }
  }
  return findings;
}

function overlaps(name: string, byStart: readonly Hold[]): Finding[] {
  const findings: Finding[] = [];
  let longest: Hold | undefined;
  for (const hold of byStart) {
    // One instant may be shared: whoever gave up and whoever was told next need not have been in that order.
    if (longest !== undefined && hold.from < untilOf(longest)) {
      findings.push({
        rule: 'exclusion',
        what: `${hold.holder} was told that it holds ${name} while ${longest.holder} still believed that it did`,
        context: [showHold(longest), showHold(hold)],
      });
    }
    if (longest === undefined || untilOf(hold) > untilOf(longest)) longest = hold;
  }
  return findings;
}

function tokenOrder(name: string, byStart: readonly Hold[]): Finding[] {
  const findings: Finding[] = [];
  const seen = new Map<number, Hold>();
  let previous: Hold | undefined;
  for (const hold of byStart) {
    const twin = seen.get(hold.token);
    if (twin !== undefined) {
      findings.push({
        rule: 'token-unique',
        what: `two holds of ${name} have token ${hold.token}`,
        context: [showHold(twin), showHold(hold)],
      });
    } else if (previous !== undefined && hold.token < previous.token && untilOf(previous) <= hold.from) {
      findings.push({
        rule: 'token-order',
        what: `${name} went from token ${previous.token} back to ${hold.token}`,
        context: [showHold(previous), showHold(hold)],
      });
    }
    seen.set(hold.token, hold);
    if (previous === undefined || hold.token > previous.token) previous = hold;
  }
  return findings;
}

const untilOf = (hold: Hold): number => hold.until ?? Number.POSITIVE_INFINITY;

const showHold = ({ name, holder, token, asked, from, until }: Hold): string =>
  `${holder} asked for ${name} at ${asked} ms, held it from ${from} ms to ${until === undefined ? 'the end' : `${until} ms`}, token ${token}`;

const showWrite = ({ name, token, time }: FencedWrite): string => `${time} ms: write to ${name} under token ${token}`;

function groupBy<T>(items: readonly T[], keyOf: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const group = groups.get(keyOf(item));
    if (group === undefined) groups.set(keyOf(item), [item]);
    else group.push(item);
  }
  return groups;
}
