import { prefix } from '@conclave/sdk';
import { EMPTY, NEVER, of, Subject, throwError } from 'rxjs';
import { concatMap, concatWith, delay, map } from 'rxjs/operators';
import { describe, expect, test } from 'vitest';
import { cluster } from '../index.ts';

describe('marble diagrams', () => {
  test('say what a watch tells, and when', async () => {
    await using c = await cluster({ size: 3 });
    const client = await c.client();
    const values = client.watch(prefix('a/')).pipe(map((event) => event.value));
    await c.expectMarbles(values, '-x-(yz) 1s w', {
      during: [
        '-p-(qr) 1s s',
        {
          p: () => client.put('a/1', 'x'),
          q: () => client.put('a/1', 'y'),
          r: () => client.put('a/1', 'z'),
          s: () => client.put('a/1', 'w'),
        },
      ],
    });
  });

  test('say what a view and its state tell', async () => {
    await using c = await cluster();
    const client = await c.client();
    const view = await c.run(client.view(prefix('a/'), { staleAfterMs: 1_000 }));
    const states = c.record(view.status().pipe(map((status) => (status.state === 'stale' ? status.reason : status.state))));
    await c.expectMarbles(view.changes().pipe(map(({ type }) => type)), '-a-c-r', {
      values: { a: 'added', c: 'changed', r: 'removed' },
      during: ['-p-q-d', { p: () => client.put('a/1', 'x'), q: () => client.put('a/1', 'y'), d: () => client.delete('a/1') }],
    });
    c.isolate(client);
    await c.until(() => states.values.length === 2);
    expect(states.values).toEqual(['synced', 'silent']);
    states.stop();
  });

  test('subscribe and unsubscribe when they say so', async () => {
    await using c = await cluster();
    const client = await c.client();
    const write = (): Promise<unknown> => client.put('a', 'x');
    const values = client.watch('a').pipe(map((event) => event.value));
    await c.expectMarbles(values, '-----x-', { subscription: '--^-----!-', during: ['-w---w---w', { w: write }] });
  });

  test('know ends and errors', async () => {
    await using c = await cluster();
    const client = await c.client();
    await c.run(async () => {
      for (const value of ['1', '2', '3']) await client.put('a', value);
    });
    await c.compact();
    await c.expectMarbles(client.watch('a', { startRevision: 1 }), '#', { error: { code: 'compacted' } });
    await c.expectMarbles(client.watch('a', { startRevision: 1 }), '#');
    await c.expectMarbles(EMPTY, '|');
    await c.expectMarbles(of('a', 'b'), '(ab|)');
    await c.expectMarbles(NEVER, '---');
    await c.expectMarbles(client.status().pipe(map(({ state }) => state)), 'r---(c|)', {
      values: { r: 'ready', c: 'closed' },
      during: ['----x', { x: () => client.close() }],
      subscription: '^----!',
    });
  });

  test('show both diagrams and what differs', async () => {
    await using c = await cluster();
    const client = await c.client();
    const values = client.watch('a').pipe(map((event) => event.value));
    const during = ['-p-q', { p: () => client.put('a', 'x'), q: () => client.put('a', 'z') }] as const;
    await expect(c.expectMarbles(values, '-x-y--|', { during })).rejects.toThrow(
      ['the Observable did not do what the diagram says', '  expected: -x-y--|', '  actual:   -x-?'].join('\n'),
    );
    await expect(c.expectMarbles(of(1, 2), '(ab)', { values: { a: 1, b: 3 } })).rejects.toThrow(
      '  actual:   (a?|)\n    0 ms: 1\n  ✗ 0 ms: 2\n    expected: 0 ms: 3\n  ✗ 0 ms: completes\n    expected: nothing',
    );
    await expect(
      c.expectMarbles(
        throwError(() => new Error('no')),
        '#',
        { error: { code: 'compacted' } },
      ),
    ).rejects.toThrow("  ✗ 0 ms: fails with Error: no\n    expected: 0 ms: fails with { code: 'compacted' }");
    await expect(c.expectMarbles(NEVER, ' 2s a')).rejects.toThrow("  actual:   (nothing)\n  ✗ nothing\n    expected: 2000 ms: 'a'");
  });

  test('tell one key, or one change of it, from another', async () => {
    await using c = await cluster();
    const client = await c.client();
    const [one, other] = await c.run(async () => {
      for (const key of ['a', 'b']) await client.put(key, 'x');
      return [await client.get('a'), await client.get('b')];
    });
    await c.expectMarbles(of(one), '(x|)', { values: { x: await c.run(client.get('a')) } });
    await expect(c.expectMarbles(of(one), '(x|)', { values: { x: other } })).rejects.toThrow('did not do what the diagram says');
    const changes = c.record(client.watch(prefix('')));
    await c.advance(10);
    await c.run(client.put('a', 'y'));
    await c.until(() => changes.values.length === 1);
    const [change] = changes.values;
    const during = ['-p', { p: () => client.put('a', 'z') }] as const;
    await expect(c.expectMarbles(client.watch('a'), '-y', { values: { y: change }, during })).rejects.toThrow('✗');
  });

  test('fail for one too many, one too few, one too early and one too late', async () => {
    await using c = await cluster();
    const differ = 'did not do what the diagram says';
    await expect(c.expectMarbles(of('a', 'b').pipe(concatWith(NEVER)), 'a')).rejects.toThrow(differ);
    await expect(c.expectMarbles(of('a').pipe(concatWith(NEVER)), 'a---|')).rejects.toThrow(differ);
    await expect(c.expectMarbles(of('a'), 'a')).rejects.toThrow(differ);
    await expect(c.expectMarbles(of('a').pipe(concatWith(NEVER)), '(ab)')).rejects.toThrow(differ);
    await expect(c.expectMarbles(of('a').pipe(concatWith(NEVER)), '-a')).rejects.toThrow(differ);
    const source = new Subject<string>();
    const during = ['--x', { x: () => source.next('a') }] as const;
    await c.expectMarbles(source, '--a', { during });
    await expect(c.expectMarbles(source, '-a-', { during })).rejects.toThrow(differ);
    await expect(c.expectMarbles(source, '---a', { during })).rejects.toThrow(differ);
    await expect(c.expectMarbles(source, '---', { during })).rejects.toThrow(differ);
  });

  test('say nothing of a time that was not recorded', async () => {
    await using c = await cluster();
    const seen = c.record(NEVER);
    expect(() => seen.expectMarbles('---')).toThrow('the diagram says something about 30 ms, and only 0 ms are recorded');
    await c.advance(30);
    seen.expectMarbles('---');
    seen.stop();
    await c.advance(30);
    expect(() => seen.expectMarbles(' 50ms ')).toThrow('only 30 ms are recorded');
    const late = c.record(of('a', 'b').pipe(concatWith(NEVER)));
    late.expectMarbles('(ab)');
    expect(() => late.expectMarbles('(ab)-')).toThrow('only 0 ms are recorded');
    // What is over stays so.
    c.record(EMPTY).expectMarbles('|');
  });

  test('refuse what they cannot mean, and pass on what an action throws', async () => {
    await using c = await cluster();
    await expect(c.expectMarbles(NEVER, 'ab', { values: { a: 1 } })).rejects.toThrow('a letter that values does not: b');
    await expect(c.expectMarbles(NEVER, '-', { during: ['x', {}] })).rejects.toThrow('a letter that is none: x');
    await expect(c.expectMarbles(NEVER, '-', { subscription: '---' })).rejects.toThrow('begins at a ^');
    const fail = async (): Promise<void> => {
      await c.advance(5);
      throw new Error('the action failed');
    };
    await expect(c.expectMarbles(NEVER, '---', { during: ['-x', { x: fail }] })).rejects.toThrow('the action failed');
  });

  test('are compared in virtual time only', async () => {
    await using c = await cluster();
    const later = of('a', 'b').pipe(concatMap((value) => of(value).pipe(delay(0))));
    const seen = c.record(later);
    await c.advance(100);
    // rxjs' own timers know nothing of virtual time.
    expect(seen.emissions.every(({ atMs }) => atMs <= 100)).toBe(true);
    seen.stop();
  });
});
