// A client that knows one member finds the others, and goes where they go.
import { existsSync } from 'node:fs';
import { connect } from '@conclave/sdk';
import { type ClusterOptions, etcdBinary, eventually, launchCluster, serverScript, targetTitle } from '@conclave/testkit';
import { describe, expect, test } from 'vitest';

const missing = 'ETCD_BIN_DIR does not hold it';
const targets: readonly { readonly name: string; readonly cluster: ClusterOptions; readonly skip: string | undefined }[] = [
  { name: 'conclave-server', cluster: { kind: 'conclave' }, skip: existsSync(serverScript()) ? undefined : 'it is not built' },
  ...(['3.5', '3.4'] as const).map((version) => ({
    name: `etcd ${version}`,
    cluster: { kind: 'etcd', version } as const,
    skip: etcdBinary(version, 'etcd') === undefined ? missing : undefined,
  })),
];

describe.each(targets.map((target) => ({ ...target, title: targetTitle(target) })))(
  'with members of $title',
  ({ cluster: options, skip }) => {
    test.skipIf(skip !== undefined)(
      'a client that knew one of them does without it, and is not sent to one that only learns',
      async () => {
        await using cluster = await launchCluster(options);
        const leader = await cluster.leader();
        const [known] = cluster.members.filter(({ name }) => name !== leader.name);
        await using client = await connect({ endpoints: known?.endpoint ?? '' });
        const seen: string[] = [];
        const subscription = client.watch('k').subscribe((event) => seen.push(event.value));
        const lease = await client.lease.grant({ ttlSeconds: 5 });
        await client.put('k', 'first');

        const voters = [...cluster.endpoints].sort();
        await cluster.add({ isLearner: true });
        expect([...(await client.sync())].sort()).toEqual(voters);
        let addresses: readonly string[] = [];
        client.status().subscribe(({ endpoints }) => {
          addresses = endpoints.map(({ address }) => address);
        });
        await eventually('all voters are ready', () => addresses.length === 3);
        expect([...addresses].sort()).toEqual(voters);

        await known?.kill();
        for (let n = 0; n < 20; n++) expect((await client.get('k'))?.value).toBe('first');
        await client.put('k', 'second');
        await eventually('the event', () => seen.at(-1) === 'second').finally(() => subscription.unsubscribe());
        expect(lease.state).toBe('held');
      },
      60_000,
    );
  },
);
