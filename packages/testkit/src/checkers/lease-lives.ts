import type { History, LeaseId, Operation } from '../history.ts';
import type { Finding } from './finding.ts';
import { leaseDeadlines } from './lease-deadlines.ts';
import type { Replay } from './replay.ts';
import { leasesPut, wrote } from './responses.ts';
import { showOperation } from './show.ts';

/** Something that shows a lease alive or gone, somewhere between two times and, if it is known, at a revision. */
interface Proof {
  readonly from: number;
  readonly to: number;
  readonly revision: number | undefined;
  readonly source: Operation | string;
  /** Whoever asked for the lease to go; undefined: nobody, or nobody knows. */
  readonly isAsked: boolean;
}

interface Life {
  readonly grants: Operation[];
  readonly alive: Proof[];
  readonly gone: Proof[];
  readonly revokes: Operation[];
}

/**
 * A lease lives once: from its grant until it is revoked or runs out, and it does not run out before its time. What shows it alive and what shows it gone
 * is compared by revision where both have one, and by real time. Ids that were granted more than once are left out.
 */
export function checkLeases(history: History, { truth, authorOf, timeline }: Pick<Replay, 'truth' | 'authorOf' | 'timeline'>): Finding[] {
  const lives = new Map<LeaseId, Life>();
  const lifeOf = (id: LeaseId): Life => {
    let life = lives.get(id);
    if (life === undefined) {
      life = { grants: [], alive: [], gone: [], revokes: [] };
      lives.set(id, life);
    }
    return life;
  };
  for (const operation of history.operations) note(operation, lifeOf);
  for (let revision = truth.firstRevision + 1; revision <= truth.revision; revision++) {
    const author = authorOf(revision);
    if (author?.type !== 'expiry') continue;
    const source = `lease ${author.lease} ran out: its keys went at revision ${revision}`;
    const time = timeline.firstShown(revision);
    lifeOf(author.lease).gone.push({ from: Number.NEGATIVE_INFINITY, to: time, revision, source, isAsked: false });
  }
  const deadlines = leaseDeadlines(history.operations);
  return [...lives].flatMap(([id, life]) => (life.grants.length > 1 ? [] : judge(id, life, deadlines.get(id))));
}

function note(operation: Operation, lifeOf: (id: LeaseId) => Life): void {
  const { request, outcome, call, return: returned } = operation;
  const proof = (revision?: number, isAsked = false): Proof => ({
    from: call,
    to: returned,
    revision,
    source: operation,
    isAsked,
  });
  if (request.type === 'leaseRevoke' && outcome.status !== 'failed') lifeOf(request.id).revokes.push(operation);
  if (outcome.status === 'unknown') {
    if (request.type === 'leaseGrant' && request.id !== undefined) lifeOf(request.id).grants.push(operation);
    return;
  }
  if (outcome.status === 'failed') {
    if (outcome.code === 'lease-exists' && request.type === 'leaseGrant' && request.id !== undefined)
      lifeOf(request.id).alive.push(proof());
    if (outcome.code !== 'lease-not-found') return;
    if (request.type === 'leaseRevoke') lifeOf(request.id).gone.push(proof());
    if (request.type === 'put' && request.lease !== undefined) lifeOf(request.lease).gone.push(proof());
    return;
  }
  const { response, revision } = outcome;
  if (response.type === 'leaseGrant') lifeOf(response.id).grants.push(operation);
  if (request.type === 'leaseRevoke') {
    lifeOf(request.id).alive.push(proof(revision));
    lifeOf(request.id).gone.push(proof(revision, true));
  }
  if (response.type === 'leaseKeepAlive') {
    const life = lifeOf((request as { readonly id: LeaseId }).id);
    (response.ttl > 0 ? life.alive : life.gone).push(proof());
  }
  if (wrote(response) === true) for (const id of leasesPut(request, response)) lifeOf(id).alive.push(proof(revision));
}

function judge(id: LeaseId, { grants, alive, gone, revokes }: Life, deadline: number | undefined): Finding[] {
  const findings: Finding[] = [];
  const find = (rule: string, what: string, ...context: string[]): void => {
    findings.push({ rule, what: `lease ${id} ${what}`, context });
  };
  const grant = grants[0];
  if (grant?.outcome.status === 'ok') {
    const { revision } = grant.outcome;
    const unborn = alive.find((proof) => proof.to < grant.call || (proof.revision !== undefined && proof.revision < revision));
    if (unborn !== undefined) find('lease-unborn', 'was alive before it was granted', show(unborn), showOperation(grant));
  }
  // What shows it gone before its grant was through says nothing: it was not there yet.
  const bornAt = grant?.outcome.status === 'ok' ? grant.return : grant === undefined ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY;
  const certainly = gone.filter((proof) => proof.isAsked || proof.from >= bornAt || proof.revision !== undefined);
  const undead = findUndead(certainly, alive);
  if (undead !== undefined) find('lease-undead', 'was alive after it was gone', show(undead.gone), show(undead.alive));
  const early = certainly.find(
    (proof) => !proof.isAsked && proof.to < (deadline ?? 0) && !revokes.some((revoke) => revoke.call < proof.to),
  );
  if (early !== undefined) find('lease-early', `was gone before it could run out, at ${deadline} ms`, show(early));
  return findings;
}

const show = ({ source }: Proof): string => (typeof source === 'string' ? source : showOperation(source));

function findUndead(gone: readonly Proof[], alive: readonly Proof[]): { readonly gone: Proof; readonly alive: Proof } | undefined {
  const byTime = [minBy(gone, (proof) => proof.to), minBy(alive, (proof) => -proof.from)] as const;
  if (byTime[0] !== undefined && byTime[1] !== undefined && byTime[0].to < byTime[1].from) return { gone: byTime[0], alive: byTime[1] };
  const dated = (proofs: readonly Proof[]): readonly Proof[] => proofs.filter((proof) => proof.revision !== undefined);
  const revision = (proof: Proof): number => proof.revision as number;
  const first = minBy(dated(gone), revision);
  const last = minBy(dated(alive), (proof) => -revision(proof));
  return first !== undefined && last !== undefined && revision(first) < revision(last) ? { gone: first, alive: last } : undefined;
}

function minBy<T>(items: readonly T[], rank: (item: T) => number): T | undefined {
  let best: T | undefined;
  for (const item of items) if (best === undefined || rank(item) < rank(best)) best = item;
  return best;
}
