import { ClusterVersion } from '@conclave/protocol';
import type { Runtime, Timer } from '@conclave/wire';
import type { Applied } from './apply/apply.ts';
import { agreedVersion } from './apply/member-changes.ts';
import type { MemberTable } from './membership/member-table.ts';
import type { Replica } from './replica/replica.ts';

export interface VersionKeeperOptions {
  readonly runtime: Runtime;
  readonly members: MemberTable;
  readonly replica: Pick<Replica<Applied>, 'isLeader' | 'propose'>;
}

/** How often a leader looks whether the cluster can do more, beside every change of the members. As in etcd. Milliseconds. */
const lookMs = 5_000;

/**
 * Raises the cluster version to what all members have published, through the log: the leader's work. New kinds of entries are proposed only once every
 * member has said that it can apply them, so that members of two releases can be one cluster.
 */
export class VersionKeeper {
  readonly #options: VersionKeeperOptions;
  #timer: Timer | undefined;
  #isProposing = false;
  #isLookDue = false;
  #isStopped = false;

  constructor(options: VersionKeeperOptions) {
    this.#options = options;
    options.members.listen(() => this.#lookSoon());
    this.#arm();
  }

  stop(): void {
    this.#isStopped = true;
    this.#timer?.cancel();
  }

  #arm(): void {
    const again = (): void => {
      this.#arm();
      this.#look();
    };
    this.#timer = this.#options.runtime.timer(lookMs, again, { background: true });
  }

  /** Not from inside the apply that changed the members. */
  #lookSoon(): void {
    if (this.#isLookDue) return;
    this.#isLookDue = true;
    this.#options.runtime.endOfTurn(() => {
      this.#isLookDue = false;
      this.#look();
    });
  }

  #look(): void {
    const { members, replica, runtime } = this.#options;
    if (this.#isStopped || this.#isProposing || !replica.isLeader) return;
    const version = agreedVersion(members);
    if (version === undefined) return;
    this.#isProposing = true;
    replica
      .propose('clusterVersion', ClusterVersion.encode(version))
      .then((applied) => {
        if (applied.kind === 'failed') throw applied.error;
        runtime.log.info({ 'cluster-version': version.version, 'entry-version': version.entryVersion }, 'the cluster version was decided');
      })
      // Whatever it was (a leader change, a member added meanwhile): the next look decides anew.
      .catch((error: unknown) => runtime.log.warn({ error: String(error) }, 'the cluster version could not be decided'))
      .finally(() => {
        this.#isProposing = false;
      });
  }
}
