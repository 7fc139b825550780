import { campaign, type Leader, type Leadership, lead, leader, observe } from '@conclave/recipes';
import { type Client, connect, prefix } from '@conclave/sdk';
import { eventually, type RunningProcess, testTargets } from '@conclave/testkit';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

describe.each(testTargets())('elections on $name', ({ name, skip, start }) => {
  if (skip !== undefined) {
    it.skip(`is not run: ${name}: ${skip}`, () => undefined);
    return;
  }

  let server: RunningProcess;
  let client: Client;
  let names = 0;
  let mine = '';

  beforeAll(async () => {
    server = await start();
    client = await connect({ endpoints: server.address });
  });
  afterAll(async () => {
    await client?.close();
    await server?.[Symbol.asyncDispose]();
  });
  beforeEach(() => {
    mine = `election/${++names}`;
  });

  const candidates = async (count: number): Promise<void> => {
    await eventually(`${count} candidates`, async () => (await client.list(prefix(`${mine}/`))).count === count);
  };

  it('lets candidates lead in the order in which they came', async () => {
    const first = await campaign(client, mine, { value: 'one' });
    expect(await leader(client, mine)).toMatchObject({ value: 'one', token: first.token, key: first.key });
    const second = campaign(client, mine, { value: 'two' });
    await candidates(2);
    const third = campaign(client, mine, { value: 'three' });
    await candidates(3);
    await first.resign();
    const elected = await second;
    expect((await leader(client, mine))?.value).toBe('two');
    await elected.resign();
    await (await third).resign();
    expect(await leader(client, mine)).toBeUndefined();
  });

  it('shows observers each leader and each proclamation, also across a restart of the server', async () => {
    const seen: (string | undefined)[] = [];
    const subscription = observe(client, mine).subscribe((now: Leader | undefined) => seen.push(now?.value));
    await eventually('nobody', () => seen.length === 1);
    const leadership = await campaign(client, mine, { value: 'one', ttlSeconds: 30 });
    await leadership.proclaim('uno');
    await eventually('uno', () => seen.at(-1) === 'uno');
    await server.kill();
    await server.restart();
    await leadership.proclaim('eins');
    await leadership.resign();
    await eventually('nobody again', () => seen.at(-1) === undefined);
    expect(seen).toEqual([undefined, 'one', 'uno', 'eins', undefined]);
    subscription.unsubscribe();
  });

  it('goes on observing after the history it needs was compacted', async () => {
    const seen: (string | undefined)[] = [];
    const subscription = observe(client, mine).subscribe((now) => seen.push(now?.value));
    await using leadership = await campaign(client, mine, { value: 'first' });
    await eventually('the first', () => seen.at(-1) === 'first');
    await server.kill();
    await server.restart();
    await using other = await connect({ endpoints: server.address });
    for (let at = 0; at < 20; at++) await other.put('noise', String(at));
    const { revision } = await other.list('noise');
    await other.compact(revision);
    await leadership.proclaim('second');
    await eventually('the second', () => seen.at(-1) === 'second');
    subscription.unsubscribe();
  });

  it('iterates, too', async () => {
    await using leadership = await campaign(client, mine, { value: 'here' });
    for await (const now of observe(client, mine)) {
      expect(now?.token).toBe(leadership.token);
      break;
    }
  });

  it('observes until the client is closed, however early that is', async () => {
    for (const waitsForFirst of [false, true]) {
      const other = await connect({ endpoints: server.address });
      let ended = '';
      let told = 0;
      observe(other, mine).subscribe({
        next: () => told++,
        error: (error: unknown) => (ended = String(error)),
        complete: () => (ended = 'completed'),
      });
      if (waitsForFirst) await eventually('nobody', () => told > 0);
      await other.close();
      await eventually('it has ended', () => ended !== '');
      expect(ended).toBe('completed');
    }
  });

  it('refuses to proclaim what is not led any more, and tells the loss', async () => {
    const leadership = await campaign(client, mine, { value: 'one' });
    await client.delete(leadership.key);
    await expect(leadership.proclaim('uno')).rejects.toMatchObject({ code: 'leadership-lost' });
    expect(leadership.signal.aborted).toBe(true);
    expect(await leader(client, mine)).toBeUndefined();
  });

  it('gives up a campaign on timeout and on abort, leaving nothing behind', async () => {
    await using first = await campaign(client, mine);
    await expect(campaign(client, mine, { timeoutMs: 50 })).rejects.toMatchObject({ code: 'campaign-timeout' });
    const controller = new AbortController();
    const second = campaign(client, mine, { signal: controller.signal });
    second.catch(() => undefined);
    await candidates(2);
    controller.abort();
    await expect(second).rejects.toMatchObject({ code: 'cancelled' });
    await candidates(1);
    expect(first.isHeld).toBe(true);
  });

  it('lead() queues again after each term, and lets the next leader in only when the body has ended', async () => {
    const stop = new AbortController();
    const running = new Set<string>();
    const terms: string[] = [];
    const body =
      (who: string) =>
      async (leadership: Leadership): Promise<void> => {
        expect(running.size).toBe(0);
        running.add(who);
        terms.push(who);
        if (terms.length === 6) stop.abort();
        // Told to stop or not, it takes its time to end.
        for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
        expect(leadership.isHeld || stop.signal.aborted).toBe(true);
        running.delete(who);
      };
    const { signal } = stop;
    await Promise.all([lead(client, mine, body('a'), { signal }), lead(client, mine, body('b'), { signal })]);
    expect(terms.length).toBeGreaterThanOrEqual(6);
    expect(terms.filter((who) => who === 'a').length).toBeGreaterThan(1);
    expect(terms.filter((who) => who === 'b').length).toBeGreaterThan(1);
    await candidates(0);
  });

  it('lead() ends with the error of its body, and resigns', async () => {
    await expect(lead(client, mine, () => Promise.reject(new Error('the body failed')))).rejects.toThrow('the body failed');
    await candidates(0);
  });

  it('lead() campaigns again after a loss', async () => {
    const stop = new AbortController();
    let terms = 0;
    await lead(
      client,
      mine,
      async (leadership) => {
        terms += 1;
        if (terms === 2) {
          stop.abort();
          return;
        }
        await client.delete(leadership.key);
        await eventually('the loss', () => leadership.signal.aborted);
        leadership.signal.throwIfAborted();
      },
      { signal: stop.signal },
    );
    expect(terms).toBe(2);
  });
});
