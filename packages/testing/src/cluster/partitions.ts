import type { Client } from '@conclave/sdk';
import type { Machine } from '../machine.ts';
import type { SimulatedCalls } from '../simulated-calls.ts';

/** A member by its number, from 1, or a client. */
export type Party = number | Client;

export interface PartitionOptions {
  /** Only what the first side says to the second is lost; between members, as a call needs both ways. Default: false. */
  readonly isOneWay?: boolean | undefined;
}

/** Between which machines nothing passes. */
export class Partitions {
  readonly #calls: SimulatedCalls;
  readonly #members: readonly Machine[];
  readonly #clients = new Set<Machine>();
  /** Ways that are blocked, in one direction. */
  readonly #blocked = new Set<string>();
  readonly #isolated = new Set<Machine>();
  /** What the network of the calls was told to hold back: client, member. */
  readonly #held = new Set<string>();

  constructor(calls: SimulatedCalls, members: readonly Machine[]) {
    this.#calls = calls;
    this.#members = members;
  }

  /** A client came to be. */
  add(client: Machine): void {
    this.#clients.add(client);
    this.#hold();
  }

  isCut(from: Machine, to: Machine): boolean {
    return this.#isolated.has(from) || this.#isolated.has(to) || this.#blocked.has(way(from, to));
  }

  partition(side: readonly Machine[], other: readonly Machine[], isOneWay: boolean): void {
    if (side.length === 0 || other.length === 0) throw new TypeError('a partition has two sides, each with somebody in it');
    const twice = side.find((machine) => other.includes(machine));
    if (twice !== undefined) throw new TypeError(`${twice.name} cannot be on both sides of a partition`);
    if (isOneWay && [...side, ...other].some((machine) => this.#clients.has(machine)))
      throw new TypeError('a partition in one direction is between members only: a call needs both');
    for (const from of side) {
      for (const to of other) {
        this.#blocked.add(way(from, to));
        if (!isOneWay) this.#blocked.add(way(to, from));
      }
    }
    this.#hold();
  }

  isolate(machine: Machine): void {
    this.#isolated.add(machine);
    this.#hold();
  }

  heal(): void {
    this.#blocked.clear();
    this.#isolated.clear();
    this.#hold();
  }

  /** Brings the network of the calls to what holds now. */
  #hold(): void {
    for (const client of this.#clients) {
      for (const member of this.#members) {
        const name = way(client, member);
        const isCut = this.isCut(client, member);
        if (isCut === this.#held.has(name)) continue;
        if (isCut) {
          this.#held.add(name);
          this.#calls.partition(client, member);
        } else {
          this.#held.delete(name);
          this.#calls.heal(client, member);
        }
      }
    }
  }
}

function way(from: Machine, to: Machine): string {
  return `${from.name} ${to.name}`;
}
