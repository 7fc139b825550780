import { existsSync } from 'node:fs';
import { type ClusterOptions, etcdBinary, serverScript, targetTitle } from '@conclave/testkit';
import { expect, test } from 'vitest';
import { loseMember } from './member-loss.ts';

const targets: readonly { readonly name: string; readonly cluster: ClusterOptions; readonly skip: string | undefined }[] = [
  { name: 'conclave-server', cluster: { kind: 'conclave' }, skip: existsSync(serverScript()) ? undefined : 'it is not built' },
  {
    name: 'etcd 3.5',
    cluster: { kind: 'etcd', version: '3.5' },
    skip: etcdBinary('3.5', 'etcd') === undefined ? 'ETCD_BIN_DIR does not hold it' : undefined,
  },
];

// Every kind of loss, with figures: member-loss.proof.ts.
test.for(targets.map((target) => ({ ...target, title: targetTitle(target) })))(
  'reads and watches go on when the leader of three is cut off from the others, or a follower is paused: $title',
  { timeout: 90_000 },
  async ({ cluster, skip }, context) => {
    if (skip !== undefined) context.skip(skip);
    for (const report of [
      await loseMember(cluster, 'cut off from the other members', true, 3_000),
      await loseMember(cluster, 'paused', false, 3_000),
    ]) {
      expect(report.errors).toEqual([]);
      expect(report.lagMs).toBeLessThan(3_000);
    }
  },
);
