import { connect, prefix } from '@conclave/sdk';
import { type EtcdLine, launchEtcd, TcpProxy } from '@conclave/testkit';
import { type ClientName, type Comparison, cell, connectCompared, ofBoth, pause } from './compared.ts';

const administrator = { username: 'root', password: 'of all evil' };
const user = { username: 'app', password: 'secret' };
const rounds = 4;

/** Item 5: tokens that run out, and users that are changed, under watches and leases that go on. */
export async function compareTokens(version: EtcdLine): Promise<readonly Comparison[]> {
  const seen = await ofBoth((name) => watchAndHold(name, version));
  const show = ({ lost, leaseLost, refused }: Seen) =>
    cell(
      `${lost} events lost, lease ${leaseLost ? 'lost' : 'kept'}, ${refused} of ${rounds} calls refused`,
      lost === 0 && !leaseLost && refused === 0,
    );
  return [
    {
      item: 5,
      measure: 'tokens run out and users change under calls, a watch and a lease; one cut',
      bar: 'no event lost, lease kept, no call refused',
      ours: show(seen.ours),
      etcd3: show(seen.etcd3),
    },
  ];
}

interface Seen {
  readonly lost: number;
  readonly leaseLost: boolean;
  readonly refused: number;
}

async function watchAndHold(name: ClientName, version: EtcdLine): Promise<Seen> {
  await using server = await launchEtcd({ version, flags: ['--auth-token-ttl', '1', '--bcrypt-cost', '4'] });
  await protect(server.address);
  await using writer = await connect({ endpoints: server.address, credentials: administrator });
  await using proxy = await TcpProxy.to(server.address);
  await using client = await connectCompared(name, { hosts: [proxy.address], credentials: user });
  const got = new Set<number>();
  const watching = await client.watch('app/e/', undefined, ({ revision }) => got.add(revision));
  let leaseLost = false;
  const { lost } = await client.lease(6, 'app/leased');
  void lost.then(() => {
    leaseLost = true;
  });
  const written: number[] = [];
  let isOver = false;
  const writing = (async () => {
    for (let n = 0; !isOver; n++, await pause(5)) written.push(Number((await writer.put('app/e/k', `${n}`)).revision));
  })();
  let refused = 0;
  for (let round = 0; round < rounds; round++) {
    // Longer than a token lives that nobody uses.
    await pause(2_500);
    await writer.users.add(`somebody ${round}`, { password: 'p' });
    await client.put('app/mine', 'v').catch(() => {
      refused += 1;
    });
    if (round === 1) proxy.cut();
  }
  isOver = true;
  await writing;
  for (const until = performance.now() + 10_000; got.size < written.length && performance.now() < until; ) await pause(20);
  await watching.stop();
  return {
    lost: written.filter((revision) => !got.has(revision)).length,
    leaseLost: leaseLost || (await writer.get('app/leased')) === undefined,
    refused,
  };
}

async function protect(address: string): Promise<void> {
  await using client = await connect({ endpoints: address });
  const { users, roles, auth } = client;
  await users.add(administrator.username, { password: administrator.password });
  await roles.add('root');
  await users.grantRole(administrator.username, 'root');
  await users.add(user.username, { password: user.password });
  await roles.add('app');
  await roles.grantPermission('app', { type: 'readwrite', target: prefix('app/') });
  await users.grantRole(user.username, 'app');
  await auth.enable();
}
