import type { Client } from '@conclave/sdk';
import { TcpProxy } from '@conclave/testkit';
import { type ClientName, type ComparedClient, type Comparison, cell, connectCompared, ofBoth } from './compared.ts';

const rounds = 100;

/** Item 2: the server does what it was asked, and its answer never arrives. */
export async function compareLostAnswers(address: string, direct: Client): Promise<readonly Comparison[]> {
  return [
    await compare('put', async (client, name) => {
      await client.put(name, 'mine');
      return true;
    }),
    await compare('create-if-absent transaction', (client, name) => client.create(name, 'mine')),
    await compare('increment by software transaction', async (client, name) => {
      await client.increment(name);
      return true;
    }),
  ];

  async function compare(what: string, act: (client: ComparedClient, name: string) => Promise<boolean>): Promise<Comparison> {
    const wrong = await ofBoth((name) => count(name, what, act));
    const show = ({ twice, untrue, dishonest, lost }: Wrong) =>
      cell(
        `${twice} twice, ${untrue} told failed, ${dishonest} errors that deny it (${lost} lost)`,
        // Where no answer was lost, nothing can go wrong.
        twice + untrue + dishonest === 0 && lost === rounds,
      );
    return {
      item: 2,
      measure: `${what}, answer lost, ${rounds} times`,
      bar: 'none applied twice, none told failed that was applied',
      ours: show(wrong.ours),
      etcd3: show(wrong.etcd3),
    };
  }

  async function count(name: ClientName, what: string, act: (client: ComparedClient, key: string) => Promise<boolean>): Promise<Wrong> {
    await using proxy = await TcpProxy.to(address);
    await using client = await connectCompared(name, { hosts: [proxy.address] });
    const wrong = { twice: 0, untrue: 0, dishonest: 0 };
    const isIncrement = what.startsWith('increment');
    for (let n = 0; n < rounds; n++) {
      const key = `lost/${what}/${name}/${n}`;
      if (isIncrement) await direct.put(key, '0');
      await client.get('warm-up').catch(() => undefined);
      // A software transaction reads first.
      proxy.loseResponse(isIncrement ? 2 : 1);
      try {
        if (!(await act(client, key)) && (await direct.get(key))?.value === 'mine') wrong.untrue += 1;
      } catch (error) {
        const isDone = (await direct.get(key))?.value === (isIncrement ? '1' : 'mine');
        if (isDone && !client.leavesOpen(error)) wrong.dishonest += 1;
      }
      proxy.behave();
      const times = Number((await direct.get(key))?.version ?? 0) - (isIncrement ? 1 : 0);
      if (times > 1) wrong.twice += 1;
    }
    return { ...wrong, lost: proxy.cuts };
  }
}

interface Wrong {
  readonly twice: number;
  readonly untrue: number;
  readonly dishonest: number;
  /** How many answers were lost. */
  readonly lost: number;
}
