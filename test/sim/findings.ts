import type { Finding } from '@conclave/testkit';
import type { Logger } from '@conclave/wire';

/** Collects what went wrong in one run. */
export class Findings {
  readonly #list: Finding[] = [];
  readonly #now: () => number;
  readonly #isVerbose: boolean;

  constructor(now: () => number, isVerbose: boolean) {
    this.#now = now;
    this.#isVerbose = isVerbose;
  }

  get list(): readonly Finding[] {
    return this.#list;
  }

  add(rule: string, what: string, context: readonly string[] = []): void {
    this.#list.push({ rule, what: `${this.#now()} ms: ${what}`, context });
  }

  addAll(findings: readonly Finding[]): void {
    this.#list.push(...findings);
  }

  /** A member's log: an error in it is a finding, unless `isExcused` says that it had reason. */
  logOf(name: string, isExcused: (message: string) => boolean): Logger {
    const show = (level: string) => (fields: object, message: string) => {
      if (this.#isVerbose) process.stderr.write(`${this.#now()} ${name} ${level} ${message} ${shown(fields)}\n`);
    };
    return {
      debug: show('debug'),
      info: show('info'),
      warn: show('warn'),
      error: (fields, message) => {
        show('error')(fields, message);
        if (!isExcused(message)) this.add('error-log', `${name}: ${message}`, [shown(fields)]);
      },
    };
  }
}

function shown(fields: object): string {
  return JSON.stringify(fields, (_, value: unknown) => {
    if (typeof value === 'bigint') return value.toString(16);
    return value instanceof Error ? value.stack : value;
  });
}
