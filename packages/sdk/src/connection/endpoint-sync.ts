import { Cluster, type Init, type Member, type MemberListRequest, type MemberListResponse } from '@conclave/protocol';
import type { Timer } from '@conclave/wire';
import { ConclaveError } from '../errors/conclave-error.ts';
import { parseEndpoints } from './endpoint.ts';
import type { Engine } from './engine.ts';
import type { Procedure, RequestOptions } from './procedure.ts';

export interface SyncOptions {
  /** How often the members are asked for, in milliseconds, beginning at once; at least 1000. */
  readonly intervalMs: number;
}

/** Keeps the endpoints of a client in step with the members of its cluster. */
export class EndpointSync {
  readonly #engine: Engine;
  readonly #isSecure: boolean;
  #timer: Timer | undefined;

  constructor(engine: Engine, isSecure: boolean) {
    this.#engine = engine;
    this.#isSecure = isSecure;
    engine.attach(this);
  }

  /** Asks for the members and goes over to them. Gives their addresses. */
  async sync(options?: RequestOptions): Promise<readonly string[]> {
    const members = await new Promise<readonly Member[]>((resolve, reject) => {
      this.#engine.start(memberListProcedure, { linearizable: true }, undefined, options, resolve, reject);
    });
    const addresses = [...new Set(members.flatMap((member) => this.#addressesOf(member)))];
    if (addresses.length === 0) throw nowhere(this.#isSecure);
    this.#engine.balancer.update(addresses);
    return addresses;
  }

  /** Does so again and again. Called once. */
  repeat(intervalMs: number): void {
    const { runtime } = this.#engine;
    const again = (): void => {
      if (!this.#engine.isClosed) this.#timer = runtime.timer(intervalMs, () => this.repeat(intervalMs), { background: true });
    };
    this.sync().then(again, (err: unknown) => {
      if (!this.#engine.isClosed) runtime.log.warn({ err }, 'the members could not be asked for; going on with the endpoints known so far');
      again();
    });
  }

  close(): void {
    this.#timer?.cancel();
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
