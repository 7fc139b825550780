import type { Backend } from '@conclave/server';
import { expect, test } from 'vitest';
import { Random, VirtualRuntime } from './index.ts';
import { Machine, SimulatedBackend } from './simulation.ts';

const key = Buffer.from('k');

function put(backend: Backend, value: string): Promise<void> {
  return backend.commit({ rows: [{ table: 'meta', key, value: Buffer.from(value) }] });
}

function textOf(backend: Pick<Backend, 'get'>): string | undefined {
  const value = backend.get('meta', key);
  return value && Buffer.from(value).toString();
}

function world(seed: number) {
  const time = new VirtualRuntime({ seed });
  const machine = new Machine(time, { name: 'm' });
  const state = new SimulatedBackend(machine, { random: new Random(seed), commitMs: () => 10 });
  const stored = (): string | undefined => textOf(state.committed);
  machine.boot();
  return { time, machine, state, stored };
}

test('what is committed survives the process; a commit under way is there whole, or not at all, by chance', async () => {
  const fates = new Set<string | undefined>();
  for (let seed = 1; seed < 20; seed++) {
    const { time, machine, state, stored } = world(seed);
    const mounted = state.mount();
    await time.run(put(mounted, 'old'));
    void put(mounted, 'new');
    await time.advance(5);
    expect(stored()).toBe('old');
    machine.kill();
    state.crash();
    fates.add(stored());
    await time.advance(20);
    machine.boot();
    expect(textOf(state.mount())).toBe(stored());
  }
  expect(fates).toEqual(new Set(['old', 'new']));
});

test('a wiped machine has nothing', async () => {
  const { time, state, stored } = world(1);
  await time.run(put(state.mount(), 'old'));
  state.wipe();
  expect(stored()).toBeUndefined();
});
