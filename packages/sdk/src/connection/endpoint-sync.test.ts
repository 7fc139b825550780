import { type Init, type Member, MemberListResponse, PutResponse } from '@conclave/protocol';
import { type ConnectOptions, connect } from '@conclave/sdk';
import { type ScriptedCall, type ScriptedClient, scriptedClient } from '@conclave/testkit';
import { describe, expect, test } from 'vitest';

const written = PutResponse.encode({ header: { revision: 7 } });

const member = (name: string, ...clientUrls: string[]): Init<Member> => ({ name, clientUrls });

/** A client of a cluster whose members are these, and which leaves other calls unanswered. */
async function clustered(
  members: readonly Init<Member>[],
  options: Partial<ConnectOptions> & { readonly reach?: (address: string) => boolean } = {},
): Promise<ScriptedClient & { members: readonly Init<Member>[]; readonly asked: ScriptedCall[] }> {
  const { reach, ...rest } = options;
  const asked: ScriptedCall[] = [];
  const scripted = { members, asked };
  const client = await scriptedClient({
    ...rest,
    prepare: (script) => {
      if (reach !== undefined) script.reach = reach;
      script.onCall = (call) => {
        if (!call.path.endsWith('/MemberList')) return;
        asked.push(call);
        call.reply(MemberListResponse.encode({ members: [...scripted.members] }));
      };
    },
  });
  return Object.assign(scripted, client);
}

/** The addresses with a connection that is not closed. */
function open({ script }: ScriptedClient): string[] {
  return script.connections.filter(({ state }) => state !== 'closed').map(({ address }) => address);
}

describe('sync', () => {
  test('goes over to the members that vote', async () => {
    const scripted = await clustered([
      member('one', 'http://m:1', 'http://m:11'),
      member('two', 'http://m:2'),
      { ...member('three', 'http://m:3'), isLearner: true },
      member('', 'http://m:4'),
    ]);
    expect(await scripted.runtime.run(scripted.client.sync())).toEqual(['m:1', 'm:11', 'm:2']);
    await scripted.runtime.advance(10);
    expect(open(scripted)).toEqual(['m:1', 'm:11', 'm:2']);
    await scripted.client.close();
    expect(scripted.runtime.pendingTimers).toBe(0);
  });

  test('keeps the connections that stay', async () => {
    const scripted = await clustered([member('one', 'http://a:1'), member('two', 'http://b:2')]);
    await scripted.runtime.run(scripted.client.sync());
    await scripted.runtime.advance(10);
    expect(scripted.script.connections.map(({ address }) => address)).toEqual(['a:1', 'b:2']);
    expect(open(scripted)).toEqual(['a:1', 'b:2']);
  });

  test('lets what is under way end where it is', async () => {
    const scripted = await clustered([member('one', 'http://b:2')]);
    const { runtime, script, client } = scripted;
    const writing = client.put('k', 'v');
    client.watch('k', { startRevision: 5 }).subscribe();
    await runtime.advance(1);
    const [put, stream] = [script.call, script.stream];
    await runtime.run(client.sync());
    await runtime.advance(10);
    expect(open(scripted)).toEqual(['a:1', 'b:2']);
    void client.get('k').catch(() => {});
    expect(script.call.address).toBe('b:2');
    put.reply(written);
    expect((await runtime.run(writing)).revision).toBe(7n);
    expect(stream.isEnded).toBe(false);
    script.to('a:1')[0]?.break();
    await runtime.advance(100);
    expect(open(scripted)).toEqual(['b:2']);
    expect(script.stream.address).toBe('b:2');
  });

  test('stays where it is as long as no member can be reached', async () => {
    let isReachable = false;
    const scripted = await clustered([member('one', 'http://b:2')], { reach: (address) => address === 'a:1' || isReachable });
    await scripted.runtime.run(scripted.client.sync());
    await scripted.runtime.advance(3_000);
    expect(open(scripted)).toEqual(['a:1', 'b:2']);
    void scripted.client.get('k').catch(() => {});
    expect(scripted.script.call.address).toBe('a:1');
    scripted.script.call.reply(written);
    isReachable = true;
    await scripted.runtime.advance(3_000);
    expect(open(scripted)).toEqual(['b:2']);
  });

  test('takes only addresses that speak TLS as the client does, and says if there is none', async () => {
    const scripted = await clustered([member('one', 'https://b:2'), member('two', 'http://c:3')]);
    expect(await scripted.runtime.run(scripted.client.sync())).toEqual(['c:3']);
    scripted.members = [member('one', 'https://b:2')];
    const error = await scripted.runtime.run(scripted.client.sync().catch((reason: unknown) => reason));
    expect(error).toMatchObject({ code: 'unavailable', message: 'no voting member tells clients an address without TLS' });
    expect(open(scripted)).toContain('c:3');
  });
});

describe('the option', () => {
  test('has it done at once and again and again, and not after the end', async () => {
    const scripted = await clustered([member('one', 'http://b:2')], { sync: { intervalMs: 10_000 } });
    await scripted.runtime.advance(10);
    expect(open(scripted)).toEqual(['b:2']);
    scripted.members = [];
    await scripted.runtime.advance(10_000);
    expect(open(scripted)).toEqual(['b:2']);
    scripted.members = [member('two', 'http://c:3')];
    await scripted.runtime.advance(10_000);
    expect(open(scripted)).toEqual(['c:3']);
    expect(scripted.asked).toHaveLength(3);
    await scripted.client.close();
    expect(scripted.runtime.pendingTimers).toBe(0);
  });

  test.each([0, 999, Number.NaN])('is refused at %s ms', async (intervalMs) => {
    await expect(connect({ endpoints: 'a:1', sync: { intervalMs } })).rejects.toMatchObject({ code: 'invalid-argument' });
  });
});
