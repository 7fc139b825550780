import { Cluster, type Init, type Member, type MemberListRequest, type MemberListResponse } from '@conclave/protocol';
import type { Timer } from '@conclave/wire';
import { ConclaveError } from '../errors/conclave-error.ts';
import { Backoff } from './backoff.ts';
import { parseEndpoints } from './endpoint.ts';
import type { Engine } from './engine.ts';
import type { Procedure, RequestOptions } from './procedure.ts';
import type { SrvDiscovery } from './srv-discovery.ts';

export interface SyncOptions {
  /** How often it is asked, in milliseconds, beginning at once; at least 1000. */
  readonly intervalMs: number;
}

const relookInitialMs = 1_000;
const relookMaxMs = 30_000;

/** Keeps the endpoints of a client in step with the members of its cluster, or with DNS. */
export class EndpointSync {
  readonly #engine: Engine;
  readonly #isSecure: boolean;
  readonly #discovery: SrvDiscovery | undefined;
  readonly #backoff: Backoff;
  #timer: Timer | undefined;
  #relookTimer: Timer | undefined;

  /** @param discovery where the endpoints are from; undefined: from the user, and then from the member list */
  constructor(engine: Engine, isSecure: boolean, discovery: SrvDiscovery | undefined) {
    this.#engine = engine;
    this.#isSecure = isSecure;
    this.#discovery = discovery;
    this.#backoff = new Backoff(engine.runtime, relookInitialMs, relookMaxMs);
    engine.attach(this);
    if (discovery !== undefined) engine.onStatus(() => this.#onStatus());
  }

  /** Asks where the members are and goes over to them. Gives their addresses. */
  async sync(options?: RequestOptions): Promise<readonly string[]> {
    if (this.#discovery !== undefined) {
      const { runtime } = this.#engine;
      const timeoutMs = this.#engine.deadlineOf(options?.deadlineMs) - runtime.monotonic();
      const choice = await this.#discovery.lookUntil(runtime, timeoutMs, options?.signal);
      this.#engine.balancer.update(choice);
      return choice.addresses;
    }
    const members = await new Promise<readonly Member[]>((resolve, reject) => {
      this.#engine.start(memberListProcedure, { linearizable: true }, undefined, options, resolve, reject);
    });
    const addresses = [...new Set(members.flatMap((member) => this.#addressesOf(member)))];
    if (addresses.length === 0) throw nowhere(this.#isSecure);
    this.#engine.balancer.update({ addresses });
    return addresses;
  }

  /** Does so again and again. Called once. */
  repeat(intervalMs: number): void {
    const { runtime } = this.#engine;
    const again = (): void => {
      if (!this.#engine.isClosed) this.#timer = runtime.timer(intervalMs, () => this.repeat(intervalMs), { background: true });
    };
    this.sync().then(again, (err: unknown) => {
      if (!this.#engine.isClosed)
        runtime.log.warn({ err }, 'it could not be found out where the members are; going on with the endpoints known so far');
      again();
    });
  }

  close(): void {
    this.#timer?.cancel();
    this.#relookTimer?.cancel();
  }

  /** When no endpoint can be reached, the members may have gone elsewhere. */
  #onStatus(): void {
    const { balancer, runtime } = this.#engine;
    if (!balancer.isUnreachable) {
      if (balancer.pick() !== undefined) this.#backoff.reset();
      return;
    }
    if (this.#relookTimer !== undefined || this.#engine.isClosed) return;
    const delayMs = this.#backoff.next();
    this.#relookTimer = runtime.timer(delayMs, () => this.#relook(), { background: true });
  }

  #relook(): void {
    const again = (): void => {
      this.#relookTimer = undefined;
      this.#onStatus();
    };
    if (!this.#engine.balancer.isUnreachable) {
      again();
      return;
    }
    this.sync().then(again, (err: unknown) => {
      this.#engine.runtime.log.warn({ err }, 'no endpoint can be reached, and it could not be found out where the members are');
      again();
    });
  }

  /** Where a member serves this client: nowhere as long as it has not started, or only learns and would turn most calls away. */
  #addressesOf({ name, isLearner, clientUrls }: Member): readonly string[] {
    if (name === '' || isLearner) return [];
    return clientUrls.flatMap((url) => {
      const { addresses, isSecure } = parseEndpoints([url]);
      return (isSecure ?? false) === this.#isSecure ? addresses : [];
    });
  }
}

function nowhere(isSecure: boolean): ConclaveError {
  const message = `no voting member tells clients an address ${isSecure ? 'that speaks TLS' : 'without TLS'}`;
  return new ConclaveError({ code: 'unavailable', message, outcome: 'not-applied' });
}

const { memberList } = Cluster.methods;

const memberListProcedure: Procedure<Init<MemberListRequest>, MemberListResponse, undefined, readonly Member[]> = {
  path: memberList.path,
  input: memberList.input,
  output: memberList.output,
  isRepeatable: true,
  result: ({ members }) => members,
};
