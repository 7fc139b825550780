import type { RaftConfig } from './config.ts';
import { invariant } from './invariant.ts';

/** When a member that hears from no leader campaigns: chosen anew each time, so that members seldom do so at the same time (paper, section 5.2). */
export class ElectionTimer {
  readonly #config: RaftConfig;
  /** Ticks since the last sign of a leader, or since a vote was given. */
  #elapsed = 0;
  /** In [electionTimeoutTicks, 2 * electionTimeoutTicks). */
  #timeout = 0;

  constructor(config: RaftConfig) {
    this.#config = config;
    this.restart();
  }

  restart(): void {
    const { electionTimeoutTicks, electionTimeoutJitter } = this.#config;
    const chance = electionTimeoutJitter();
    invariant(chance >= 0 && chance < 1, () => `electionTimeoutJitter gave ${chance}`);
    this.#elapsed = 0;
    this.#timeout = electionTimeoutTicks + Math.floor(chance * electionTimeoutTicks);
  }

  /** A sign of life. */
  extend(): void {
    this.#elapsed = 0;
  }

  /** @returns whether it is time to campaign. */
  tick(): boolean {
    this.#elapsed += 1;
    return this.#elapsed >= this.#timeout;
  }

  /** A leader was heard from within the shortest time after which anybody campaigns. */
  get isFresh(): boolean {
    return this.#elapsed < this.#config.electionTimeoutTicks;
  }
}
