import { ProcessFaults } from '@conclave/testkit';
import { type Prepared, reignOf, type Scenario, type Stage } from '../scenario.ts';

const hour = 3_600_000;
const day = 24 * hour;

/** The wall clock is for people and logs: no election, no lease and no revision may depend on it. */
export const clocks: readonly Scenario[] = [
  {
    name: 'clock-jumps',
    size: 3,
    oursOnly: 'the clock is changed by a library preloaded into programs that use the C library',
    prepare: () => new Clocks(),
    run: jump,
  },
];

class Clocks implements Prepared, Disposable {
  readonly #faults = new Map<string, ProcessFaults>();
  readonly cluster = {
    member: (name: string) => {
      const faults = new ProcessFaults();
      this.#faults.set(name, faults);
      return { environment: faults.environment };
    },
  };

  set(name: string, offsetMs: number): void {
    this.#faults.get(name)?.set([{ on: 'clock', offsetMs }]);
  }

  [Symbol.dispose](): void {
    for (const faults of this.#faults.values()) faults[Symbol.dispose]();
  }
}

async function jump({ cluster, workload, lasts, note }: Stage, prepared: Prepared): Promise<void> {
  const clocksOf = prepared as Clocks;
  const reign = await reignOf(cluster);
  for (const offset of [hour, -hour, 2 * day, -2 * day]) {
    // The leader alone, then every member to another side.
    clocksOf.set(reign.name, offset);
    await workload.changes(30);
    for (const [at, name] of cluster.names.entries()) clocksOf.set(name, at % 2 === 0 ? offset : -offset);
    await workload.changes(30);
  }
  for (let step = 0; step < 20; step++) {
    clocksOf.set(reign.name, step % 2 === 0 ? hour : 0);
    await lasts(100);
  }
  for (const name of cluster.names) clocksOf.set(name, 0);
  const after = await reignOf(cluster);
  if (after.term !== reign.term) throw new Error(`clocks made an election: term ${reign.term} became ${after.term}`);
  note(`${reign.name} led all the while, in term ${reign.term}`);
}
