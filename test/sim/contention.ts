import { campaign, lock } from '@conclave/recipes';
import { isConclaveError, put } from '@conclave/sdk';
import { type ClientProcess, isTrouble } from './client.ts';
import { exponential } from './plan.ts';

/** What locks and elections may end with by themselves. */
const lost: ReadonlySet<string> = new Set([
  'lock-lost',
  'lock-timeout',
  'lock-released',
  'leadership-lost',
  'leadership-resigned',
  'campaign-timeout',
  'lease-lost',
  'lease-not-found',
  'lease-revoked',
  'cancelled',
  'no-space',
]);

interface Holding {
  readonly name: string;
  readonly token: number;
  readonly asked: number;
  readonly from: number;
  until: number | undefined;
}

/** Takes locks and leads elections, one after the other, and writes under them what only their holder may write. */
export class Contention {
  readonly #process: ClientProcess;
  readonly #holding = new Set<Holding>();
  readonly #stopping = new AbortController();
  #underWay = '';

  constructor(process: ClientProcess) {
    this.#process = process;
  }

  get isIdle(): boolean {
    return this.#underWay === '';
  }

  get underWay(): string {
    return this.#underWay;
  }

  start(): void {
    const { random, runtime } = this.#process;
    const again = (): void => {
      runtime.timer(exponential(random, 1_500), () => {
        if (this.#stopping.signal.aborted) return;
        this.#contend().then(again, (error: unknown) => {
          const { world, name } = this.#process;
          if (!isTrouble(error) && !(isConclaveError(error) && lost.has(error.code))) {
            world.findings.add('recipe-error', `${name}: ${error instanceof Error ? error.stack : String(error)}`);
          }
          again();
        });
      });
    };
    again();
  }

  stop(): void {
    this.#stopping.abort();
  }

  /** The process stands still or is dead: it does nothing under what it holds from here on. */
  interrupted(): void {
    for (const holding of this.#holding) this.#end(holding);
  }

  async #contend(): Promise<void> {
    const { random } = this.#process;
    const name = random.pick(['lock/a', 'lock/b', 'election/c']);
    this.#underWay = name;
    try {
      await this.#hold(name);
    } finally {
      this.#underWay = '';
    }
  }

  async #hold(name: string): Promise<void> {
    const { client, random, world, runtime } = this.#process;
    const asked = world.time.monotonic();
    const options = {
      ttlSeconds: world.plan.workload.leaseTtlSeconds,
      timeoutMs: 5_000 + random.below(10_000),
      signal: this.#stopping.signal,
    };
    const held = name.startsWith('lock')
      ? await lock(client, name, options)
      : await campaign(client, name, { ...options, value: this.#process.name });
    const { signal } = held;
    if (signal.aborted) return;
    const holding: Holding = { name, token: Number(held.token), asked, from: world.time.monotonic(), until: undefined };
    this.#holding.add(holding);
    signal.addEventListener('abort', () => this.#end(holding), { once: true });
    if (this.#process.isPaused()) this.#end(holding);
    try {
      for (let writes = 1 + random.below(3); writes > 0 && held.isHeld; writes--) {
        await client
          .txn()
          .if(held.guard)
          .then(put(`fence/${name}`, `${holding.token} ${world.nextValue()}`))
          .commit();
        if (!signal.aborted) world.fencedWrite(name, holding.token);
        await new Promise<void>((resolve) => void runtime.timer(random.below(400), resolve));
      }
    } finally {
      this.#end(holding);
      if ('release' in held) await held.release();
      else await held.resign();
    }
  }

  #end(holding: Holding): void {
    if (!this.#holding.delete(holding)) return;
    const { world, name: holder } = this.#process;
    world.recorder.hold({
      name: holding.name,
      holder,
      token: holding.token,
      asked: holding.asked,
      from: holding.from,
      until: world.time.monotonic(),
    });
  }
}
