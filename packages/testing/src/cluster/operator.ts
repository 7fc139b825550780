import { type Client, connect } from '@conclave/sdk';
import type { Machine } from '../machine.ts';
import type { SimulatedCalls } from '../simulated-calls.ts';
import type { VirtualRuntime } from '../virtual-runtime.ts';
import type { MemberHost } from './member-host.ts';

export interface OperatorOptions {
  readonly time: VirtualRuntime;
  readonly calls: SimulatedCalls;
  readonly hosts: readonly MemberHost[];
  readonly newMachine: (name: string) => Machine;
}

/** Whoever acts on the cluster for the test. No partition holds up its calls. */
export class Operator {
  readonly #options: OperatorOptions;
  #calls = 0;

  constructor(options: OperatorOptions) {
    this.#options = options;
  }

  /** Does something at the member that leads, once there is one. Members have numbers from 1. */
  async atLeader<T>(action: (client: Client, number: number) => Promise<T>): Promise<T> {
    const { time, hosts } = this.#options;
    for (;;) {
      const host = hosts.find(({ isActive, server }) => isActive && server?.isLeader === true);
      if (host !== undefined) {
        await using client = await this.#connect(host);
        if (await leads(client)) return await action(client, hosts.indexOf(host) + 1);
      }
      await new Promise<void>((resolve) => void time.timer(pollMs, resolve));
    }
  }

  #connect({ name }: MemberHost): Promise<Client> {
    const { calls, newMachine } = this.#options;
    this.#calls += 1;
    const machine = newMachine(`operator${this.#calls}`);
    const runtime = machine.boot();
    return connect({ runtime, transport: calls.transportOf(machine), endpoints: name, lazy: true });
  }
}

const pollMs = 10;
const readMs = 500;

/** A member that was cut off believes for a while that it leads. Only the true leader can say what is. */
async function leads(client: Client): Promise<boolean> {
  try {
    await client.get('\0', { deadlineMs: readMs });
    return true;
  } catch {
    // Whatever it is: this one is not it, and the next look finds another.
    return false;
  }
}
