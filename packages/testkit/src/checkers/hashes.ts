import type { Finding } from './finding.ts';

/** What one member said about its data: the answer to HashKV at `revision`. */
export interface HashSample {
  readonly member: string;
  readonly revision: number;
  /** Hashes compare only when both members have compacted up to here. */
  readonly compactRevision: number;
  readonly hash: number | string;
}

/** Equal revision and equal compaction: equal hash, whoever answers and whenever. */
export function checkHashes(samples: Iterable<HashSample>): Finding[] {
  const findings: Finding[] = [];
  const first = new Map<string, HashSample>();
  for (const sample of samples) {
    const place = `${sample.revision}/${sample.compactRevision}`;
    const known = first.get(place);
    if (known === undefined) first.set(place, sample);
    else if (known.hash !== sample.hash) {
      findings.push({
        rule: 'equal-hashes',
        what: `members ${known.member} and ${sample.member} hold different data at revision ${sample.revision}`,
        context: [showSample(known), showSample(sample)],
      });
    }
  }
  return findings;
}

const showSample = ({ member, revision, compactRevision, hash }: HashSample): string =>
  `member ${member}: hash ${hash} at revision ${revision}, compacted at ${compactRevision}`;
