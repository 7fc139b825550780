import { KV, Lease } from '@conclave/protocol';
import { RawClient, type RecordingOptions, recordingTransport } from '@conclave/testkit';
import type { Connection, Transport } from '@conclave/wire';

const encoder = new TextEncoder();
const timeoutMs = 2000;

/**
 * Grants leases, puts keys under them, and revokes them or lets them run out. One request at a time over single connections: the SDK would
 * keep the leases alive.
 */
export class LeaseUser {
  readonly #connect: Transport;
  readonly #endpoints: () => readonly string[];
  readonly #connections = new Map<string, Connection>();
  #asked = 0;

  constructor(transport: Transport, endpoints: () => readonly string[], options: RecordingOptions) {
    this.#connect = recordingTransport(transport, options);
    this.#endpoints = endpoints;
  }

  async run(stop: AbortSignal): Promise<void> {
    for (let n = 0; !stop.aborted; n++) {
      const id = await this.#use(n);
      if (id !== undefined && n % 3 !== 0) await this.#next.unary(Lease.methods.leaseRevoke, { id }, { timeoutMs });
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    for (const connection of this.#connections.values()) connection.close();
  }

  async #use(n: number): Promise<bigint | undefined> {
    const granted = await this.#next.unary(Lease.methods.leaseGrant, { ttl: 2 + (n % 3) }, { timeoutMs });
    const id = granted.response?.id;
    if (id === undefined) return undefined;
    for (let at = 0; at <= n % 3; at++) {
      const request = { key: encoder.encode(`leased/${(n + at) % 7}`), value: encoder.encode(`${n}.${at}`), lease: id };
      await this.#next.unary(KV.methods.put, request, { timeoutMs });
    }
    if (n % 5 === 0) await this.#next.unary(Lease.methods.leaseTimeToLive, { id, keys: true }, { timeoutMs });
    return id;
  }

  /** Each call goes to the next member. */
  get #next(): RawClient {
    const endpoints = this.#endpoints();
    const endpoint = endpoints[this.#asked++ % endpoints.length] ?? '';
    const connection = this.#connections.get(endpoint) ?? this.#connect(endpoint);
    this.#connections.set(endpoint, connection);
    return new RawClient(connection);
  }
}
