import { Cluster, type Member as MemberEntry } from '@conclave/protocol';
import type { Random } from '@conclave/testing';
import type { Admin } from './admin.ts';
import type { Member } from './member.ts';
import type { World } from './world.ts';

/** An operator replaces a member: removes it, gives its machine empty disks, adds a learner in its place, and promotes it once it has caught up. */
export class Replacement {
  readonly #world: World;
  readonly #admin: Admin;
  readonly #random: Random;
  #step = '';

  constructor(world: World, admin: Admin, random: Random) {
    this.#world = world;
    this.#admin = admin;
    this.#random = random;
  }

  get isUnderWay(): boolean {
    return this.#step !== '';
  }

  get step(): string {
    return this.#step;
  }

  async run(member: Member, deadline: number): Promise<void> {
    try {
      if (!(await this.#remove(member, deadline))) return;
      // Now and then it lives on for a while, and has to learn of its end by itself.
      this.#step = 'wait';
      await this.#world.sleep(this.#random.pick([0, 500, 3_000]));
      member.retire();
      const newUrl = member.nextPeerUrl;
      const members = await this.#add(newUrl, deadline);
      if (members === undefined) return this.#failed('add');
      const initialCluster = Object.fromEntries(members.map((entry, at) => [this.#nameOf(entry, member, newUrl, at), entry.peerUrls]));
      member.replace({ initialCluster, state: 'existing' });
      member.start();
      if (!(await this.#promote(newUrl, deadline))) this.#failed('promote');
    } finally {
      this.#step = '';
    }
  }

  #failed(step: string): void {
    this.#world.findings.add('replacement', `a member could not be replaced: it hung at "${step}"`);
  }

  /** A member that has not started has no name yet. */
  #nameOf({ name, peerUrls }: MemberEntry, member: Member, newUrl: string, at: number): string {
    if (peerUrls.includes(newUrl)) return member.name;
    return name === '' ? `unnamed${at}` : name;
  }

  async #remove(member: Member, deadline: number): Promise<boolean> {
    this.#step = 'remove';
    const url = member.peerUrl;
    member.isUnwanted = true;
    while (this.#world.time.monotonic() < deadline) {
      const members = await this.#admin.memberList(deadline);
      const entry = members?.find(({ peerUrls }) => peerUrls.includes(url));
      if (members !== undefined && entry === undefined) return true;
      if (entry === undefined) return false;
      const answer = await this.#admin.persist(this.#world.time.monotonic() + 5_000, async (asked) => {
        const removed = await this.#admin.call(asked, Cluster.methods.memberRemove, { id: entry.id });
        // Whatever it says, the list tells.
        return 'ok' in removed ? removed : { ok: undefined, ...removed };
      });
      // Refused for the cluster's sake: nobody is replaced this time.
      if ('error' in answer && ['unhealthy-cluster', 'not-enough-started-members'].includes(answer.error as string)) return false;
      await this.#world.sleep(300);
    }
    return false;
  }

  async #add(url: string, deadline: number): Promise<readonly MemberEntry[] | undefined> {
    this.#step = 'add';
    while (this.#world.time.monotonic() < deadline) {
      const members = await this.#admin.memberList(deadline);
      if (members?.some(({ peerUrls }) => peerUrls.includes(url)) === true) return members;
      const up = this.#world.members.filter(({ server }) => server !== undefined);
      if (up.length > 0) await this.#admin.call(this.#random.pick(up), Cluster.methods.memberAdd, { peerUrls: [url], isLearner: true });
      await this.#world.sleep(300);
    }
    return undefined;
  }

  async #promote(url: string, deadline: number): Promise<boolean> {
    this.#step = 'promote';
    while (this.#world.time.monotonic() < deadline) {
      const members = await this.#admin.memberList(deadline);
      const entry = members?.find(({ peerUrls }) => peerUrls.includes(url));
      if (entry?.isLearner === false) return true;
      const up = this.#world.members.filter(({ server }) => server !== undefined);
      if (entry !== undefined && up.length > 0)
        await this.#admin.call(this.#random.pick(up), Cluster.methods.memberPromote, { id: entry.id });
      await this.#world.sleep(300);
    }
    return false;
  }
}
