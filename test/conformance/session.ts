import { type Case, isAtLeast } from './case.ts';
import { Context } from './context.ts';
import { differences } from './differences.ts';
import type { Settings, StartedTarget, Target } from './target.ts';

export type Verdict =
  | { readonly kind: 'passed' | 'differs' }
  | { readonly kind: 'skipped'; readonly why: string }
  | { readonly kind: 'failed'; readonly error: unknown };

const caseWithinMs = 30_000;

/** Runs cases on one target, one after the other. Cases with equal settings share a server, as long as none of them wants its own. */
export class Session implements AsyncDisposable {
  readonly #target: Target;
  readonly #shared = new Map<string, StartedTarget>();

  constructor(target: Target) {
    this.#target = target;
  }

  /** Why the target does not run the case; undefined when it does. */
  skips(one: Case): string | undefined {
    const { version, hasSocket, commits } = this.#target;
    if (one.since !== undefined && !isAtLeast(version, one.since)) return `since etcd ${one.since}`;
    if (one.until !== undefined && !isAtLeast(`${one.until}.999`, version)) return `until etcd ${one.until}`;
    if (one.needs === 'socket' && !hasSocket) return 'needs a socket';
    if (one.needs === 'commits' && !commits) return 'waits for the backend';
    return undefined;
  }

  async run(one: Case): Promise<Verdict> {
    const why = this.skips(one);
    if (why !== undefined) return { kind: 'skipped', why };
    const mayDiffer = this.#target.isOurs && differences.has(one.name);
    try {
      await this.#runOn(one);
    } catch (error) {
      return mayDiffer ? { kind: 'differs' } : { kind: 'failed', error };
    }
    if (mayDiffer) return { kind: 'failed', error: new Error('listed in differences.ts, but it passes: take it off the list') };
    return { kind: 'passed' };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const server of this.#shared.values()) await server[Symbol.asyncDispose]();
    this.#shared.clear();
  }

  async #runOn(one: Case): Promise<void> {
    if (one.fresh === true) {
      await using server = await this.#target.start(one.settings ?? {});
      await runOne(one, server);
    } else {
      await this.#runOnShared(one);
    }
  }

  /** A case that fails may leave its server in any state, or dead: the next one gets another. */
  async #runOnShared(one: Case): Promise<void> {
    const settings = one.settings ?? {};
    const server = await this.#serverWith(settings);
    try {
      await runOne(one, server);
    } catch (error) {
      this.#shared.delete(JSON.stringify(settings));
      await server[Symbol.asyncDispose]();
      throw error;
    }
  }

  async #serverWith(settings: Settings): Promise<StartedTarget> {
    const key = JSON.stringify(settings);
    let server = this.#shared.get(key);
    if (server === undefined) {
      server = await this.#target.start(settings);
      this.#shared.set(key, server);
    }
    return server;
  }
}

async function runOne(one: Case, server: StartedTarget): Promise<void> {
  using context = await Context.begin(server);
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`the case took more than ${caseWithinMs} ms`)), caseWithinMs);
  });
  try {
    await Promise.race([one.run(context), late]);
  } finally {
    clearTimeout(timer);
  }
}
