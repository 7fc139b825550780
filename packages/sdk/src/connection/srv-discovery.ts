import type { Runtime } from '@conclave/wire';
import { ConclaveError, invalidArgument } from '../errors/conclave-error.ts';
import { onAbort } from './abort.ts';
import { Backoff } from './backoff.ts';
import type { Preferences } from './preference.ts';

/** One answer of DNS, as `node:dns` gives it. */
export interface SrvRecord {
  readonly name: string;
  readonly port: number;
  readonly priority: number;
  readonly weight: number;
}

/** Where the members of a cluster are found, as etcd's own tools find them with `--discovery-srv`. */
export interface DiscoveryOptions {
  /** The domain: `example.com` stands for the SRV records of `_etcd-client-ssl._tcp.example.com` and `_etcd-client._tcp.example.com`. */
  readonly srv: string;
  /** Tells several clusters of a domain apart, as `--discovery-srv-name` does: with `blue`, `_etcd-client-ssl-blue._tcp`, … Default: none. */
  readonly name?: string | undefined;
  /** Asks DNS. Default: `resolveSrv` of `node:dns/promises`. */
  readonly resolveSrv?: ((name: string) => Promise<readonly SrvRecord[]>) | undefined;
}

/** What DNS says. */
export interface Discovered {
  readonly addresses: readonly string[];
  readonly preferences: Preferences;
}

const retryInitialMs = 100;
const retryMaxMs = 1_000;

/** Looks the endpoints of a cluster up in DNS. */
export class SrvDiscovery {
  readonly #options: DiscoveryOptions;
  /** Only hosts of the domain itself are taken. */
  readonly #isStrict: boolean;
  #isSecure: boolean | undefined;

  /**
   * @param isSecure undefined: over TLS if there are records for it
   * @param isAnyoneTrusted a certificate of any public authority will do, so that a forged record could name a host that has one
   */
  constructor(options: DiscoveryOptions, isSecure: boolean | undefined, isAnyoneTrusted: boolean) {
    for (const [what, label] of [
      ['srv', options.srv],
      ['name', options.name],
    ] as const) {
      if (label !== undefined && !/^[\w-]+(\.[\w-]+)*\.?$/.test(label))
        throw invalidArgument(`discovery.${what} is no name of DNS: ${label}`);
    }
    this.#options = options;
    this.#isSecure = isSecure;
    this.#isStrict = isAnyoneTrusted;
  }

  /** Whether the endpoints speak TLS; known after the first {@link look}. */
  get isSecure(): boolean {
    return this.#isSecure ?? false;
  }

  /** Asks once. @throws ConclaveError `unavailable` */
  async look(): Promise<Discovered> {
    if (this.#isSecure !== undefined) return this.#ask(this.#isSecure);
    const secure = await this.#records(true);
    // That there are none must be certain: whoever can make the question fail shall not make the client do without TLS.
    this.#isSecure = secure.length > 0;
    return this.#isSecure ? this.#discovered(secure, true) : this.#ask(false);
  }

  /** Asks until there is an answer, at most for so long. @throws ConclaveError `unavailable`, `cancelled` */
  async lookUntil(runtime: Runtime, timeoutMs: number, signal: AbortSignal | undefined): Promise<Discovered> {
    const backoff = new Backoff(runtime, retryInitialMs, retryMaxMs);
    const deadline = runtime.monotonic() + timeoutMs;
    for (;;) {
      try {
        return await this.#within(runtime, deadline, signal);
      } catch (error) {
        const delayMs = backoff.next();
        if (signal?.aborted === true || runtime.monotonic() + delayMs >= deadline) throw error;
        await new Promise<void>((resolve) => void runtime.timer(delayMs, resolve));
      }
    }
  }

  /** {@link look}, given up when the time is up: DNS itself takes its time. */
  #within(runtime: Runtime, deadline: number, signal: AbortSignal | undefined): Promise<Discovered> {
    return new Promise((resolve, reject) => {
      const giveUp = (): void => {
        stop();
        reject(this.#failure('no answer in time'));
      };
      const cancel = (): void => {
        stop();
        const message = 'connecting was cancelled';
        reject(new ConclaveError({ code: 'cancelled', message, outcome: 'not-applied', cause: signal?.reason }));
      };
      if (signal?.aborted === true) {
        cancel();
        return;
      }
      const timer = deadline === Number.POSITIVE_INFINITY ? undefined : runtime.timer(deadline - runtime.monotonic(), giveUp);
      const stopListening = signal === undefined ? undefined : onAbort(signal, cancel);
      function stop(): void {
        timer?.cancel();
        stopListening?.();
      }
      this.look().then(resolve, reject).finally(stop);
    });
  }

  async #ask(isSecure: boolean): Promise<Discovered> {
    return this.#discovered(await this.#records(isSecure), isSecure);
  }

  async #records(isSecure: boolean): Promise<readonly SrvRecord[]> {
    const resolveSrv = this.#options.resolveSrv ?? (await import('node:dns/promises')).resolveSrv;
    try {
      return await resolveSrv(this.#question(isSecure));
    } catch (error) {
      if (isNothing(error)) return [];
      throw this.#failure(error instanceof Error ? error.message : String(error), error);
    }
  }

  #discovered(records: readonly SrvRecord[], isSecure: boolean): Discovered {
    const found = records.filter(({ name }) => !isSecure || !this.#isStrict || this.#isWithin(name));
    if (found.length === 0) throw this.#failure(records.length === 0 ? 'there are no records' : 'all records point out of the domain');
    const preferences = new Map(found.map(({ name, port, priority, weight }) => [`${bare(name)}:${port}`, { priority, weight }]));
    return { addresses: [...preferences.keys()], preferences };
  }

  #isWithin(host: string): boolean {
    const domain = bare(this.#options.srv).toLowerCase();
    const name = bare(host).toLowerCase();
    return name === domain || name.endsWith(`.${domain}`);
  }

  #question(isSecure: boolean): string {
    const { srv, name } = this.#options;
    return `_etcd-client${isSecure ? '-ssl' : ''}${name === undefined ? '' : `-${name}`}._tcp.${bare(srv)}`;
  }

  #failure(why: string, cause?: unknown): ConclaveError<'unavailable'> {
    const asked = this.#isSecure === undefined ? `${this.#question(true)} and ${this.#question(false)}` : this.#question(this.#isSecure);
    return new ConclaveError({ code: 'unavailable', message: `no endpoints from ${asked}: ${why}`, outcome: 'not-applied', cause });
  }
}

/** Whether DNS said that there are no such records, and not that it cannot say. */
function isNothing(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'ENOTFOUND' || error.code === 'ENODATA');
}

/** A name without the dot at its end. */
function bare(name: string): string {
  return name.replace(/\.$/, '');
}
