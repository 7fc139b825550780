import { describe, expect, test } from 'vitest';
import { VirtualRuntime } from './index.ts';
import { Machine } from './simulation.ts';

function machine(options: { readonly clockRate?: number; readonly quantumMs?: number } = {}) {
  const time = new VirtualRuntime({ seed: 1 });
  const machine = new Machine(time, { name: 'm', ...options });
  const seen: string[] = [];
  const note = (what: string) => () => void seen.push(`${what}@${time.monotonic()}`);
  return { time, machine, seen, note };
}

describe('a machine', () => {
  test('nothing that a dead process waited for comes, whatever runs there now', async () => {
    const { time, machine: m, seen, note } = machine();
    const first = m.boot();
    first.timer(10, note('timer of the first'));
    m.arrive(10, note('packet for the first'));
    first.endOfTurn(note('turn of the first'));
    m.kill();
    m.boot().timer(10, note('timer of the second'));
    first.timer(5, note('timer set by the dead'));
    first.endOfTurn(note('turn of the dead'));
    await time.advance(20);
    expect(seen).toEqual(['timer of the second@10']);
  });

  test('while it is paused what falls due waits, and comes in its order when it goes on', async () => {
    const { time, machine: m, seen, note } = machine();
    const process = m.boot();
    process.timer(10, note('a'));
    process.timer(20, note('b'));
    const cancelled = process.timer(15, note('cancelled'));
    m.arrive(12, note('packet'));
    m.pause();
    await time.advance(100);
    expect([seen, process.monotonic()]).toEqual([[], 100]);
    cancelled.cancel();
    m.resume();
    await time.advance(0);
    expect(seen).toEqual(['a@100', 'packet@100', 'b@100']);
  });

  test('its clock may be slow or fast, and its timers with it', async () => {
    const { time, machine: m, seen, note } = machine({ clockRate: 0.5 });
    const process = m.boot();
    process.timer(100, note('timer'));
    await time.advance(150);
    expect([seen, process.monotonic()]).toEqual([[], 75]);
    await time.advance(100);
    expect(seen).toEqual(['timer@200']);
  });

  test('its wall clock can be stepped, and nothing else notices', async () => {
    const { time, machine: m } = machine();
    const process = m.boot();
    const before = process.wall();
    m.stepWall(-3_600_000);
    await time.advance(5);
    expect([process.wall() - before, process.monotonic(), process.boot()]).toEqual([-3_599_995, 5, 5]);
  });

  test('with a quantum timers fire on its multiples, late and not early', async () => {
    const { time, machine: m, seen, note } = machine({ quantumMs: 10 });
    await time.advance(3);
    const process = m.boot();
    process.timer(0, note('at once'));
    process.timer(7, note('exact'));
    process.timer(7.5, note('late'));
    await time.advance(30);
    expect(seen).toEqual(['at once@10', 'exact@10', 'late@20']);
  });

  test('a dead process writes no log, and observers are told of its end', () => {
    const lines: string[] = [];
    const show = (_: object, message: string): void => void lines.push(message);
    const m = new Machine(new VirtualRuntime(), { name: 'm', log: { debug: show, info: show, warn: show, error: show } });
    m.observe({ paused: () => lines.push('paused'), resumed: () => lines.push('resumed'), killed: () => lines.push('killed') });
    const { log } = m.boot();
    log.info({}, 'alive');
    m.pause();
    m.resume();
    m.kill();
    log.error({}, 'dead');
    expect(lines).toEqual(['alive', 'paused', 'resumed', 'killed']);
  });
});
