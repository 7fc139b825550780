import type { ClusterMember } from './member-table.ts';
import { checkUrl } from './member-url.ts';

/** A member's name → its peer URLs: what `--initial-cluster` says. */
export type InitialCluster = Readonly<Record<string, readonly string[]>>;

/** What a member is told of the cluster it is to found or to join. */
export interface InitialConfig {
  readonly name: string;
  readonly peerUrls: readonly string[];
  readonly initialCluster: InitialCluster;
}

/** What a cluster says of itself to one that wants to join it. */
export interface ExistingCluster {
  readonly clusterId: bigint;
  readonly members: readonly Pick<ClusterMember, 'id' | 'peerUrls'>[];
}

/** A member is told to be part of a cluster that cannot be, or that is another. In etcd's words. */
export class InitialClusterError extends Error {
  readonly code = 'initial-cluster-invalid';

  constructor(message: string) {
    super(message);
    this.name = 'InitialClusterError';
  }
}

/** @throws InitialClusterError when no cluster can begin with this */
export function checkFounder({ name, peerUrls, initialCluster }: InitialConfig): void {
  const own = checkLocal(name, initialCluster);
  const unadvertised = own.filter((url) => !peerUrls.includes(url));
  if (unadvertised.length > 0) {
    const missing = unadvertised.map((url) => `${name}=${url}`).join();
    throw new InitialClusterError(`--initial-cluster has ${missing} but missing from --initial-advertise-peer-urls=${peerUrls.join()}`);
  }
  const unlisted = peerUrls.filter((url) => !own.includes(url));
  if (unlisted.length > 0) {
    const listed = peerUrls.map((url) => `${name}=${url}`).join();
    throw new InitialClusterError(`--initial-advertise-peer-urls has ${unlisted.join()} but missing from --initial-cluster=${listed}`);
  }
}

/**
 * Who this member is in a cluster there is: it was added there by its peer URLs.
 *
 * @throws InitialClusterError when the cluster is not the one described
 */
export function joinCluster(
  existing: ExistingCluster,
  { name, initialCluster }: InitialConfig,
): { readonly memberId: bigint; readonly clusterId: bigint } {
  const own = checkLocal(name, initialCluster);
  const described = Object.values(initialCluster);
  const fail = (why: string): never => {
    const members = existing.members.map(({ id, peerUrls }) => `{ID:${id.toString(16)} PeerURLs:[${peerUrls.join(' ')}]}`).join(' ');
    throw new InitialClusterError(`error validating peerURLs {ClusterID:${existing.clusterId.toString(16)} Members:[${members}]}: ${why}`);
  };
  if (described.length !== existing.members.length) fail('member count is unequal');
  for (const { id, peerUrls } of existing.members) {
    if (described.some((urls) => sameUrls(urls, peerUrls))) continue;
    fail(`PeerURLs: no match found for existing member (${id.toString(16)}, [${peerUrls.join(' ')}])`);
  }
  // As many members on both sides, and no URL twice: each is somebody, this one too.
  const self = existing.members.find(({ peerUrls }) => sameUrls(own, peerUrls))!;
  return { memberId: self.id, clusterId: existing.clusterId };
}

/**
 * A founder without data that its cluster already knows has lost what it promised: it must not begin anew under its old id.
 *
 * @throws InitialClusterError
 */
export function refuseSecondFounding(
  existing: { readonly clusterId: bigint; readonly members: readonly Pick<ClusterMember, 'id' | 'clientUrls'>[] },
  founder: { readonly memberId: bigint; readonly clusterId: bigint },
): void {
  const known = existing.clusterId === founder.clusterId ? existing.members.find(({ id }) => id === founder.memberId) : undefined;
  if (known === undefined || known.clientUrls.length === 0) return;
  throw new InitialClusterError(`member ${founder.memberId.toString(16)} has already been bootstrapped`);
}

function checkLocal(name: string, initialCluster: InitialCluster): readonly string[] {
  const urls = Object.values(initialCluster).flat();
  for (const url of urls) checkInitialUrl(url);
  const own = Object.hasOwn(initialCluster, name) ? initialCluster[name] : undefined;
  if (own === undefined) throw new InitialClusterError(`couldn't find local name "${name}" in the initial cluster configuration`);
  if (new Set(urls).size !== urls.length) throw new InitialClusterError(`initial cluster ${shown(initialCluster)} has duplicate url`);
  return own;
}

function checkInitialUrl(url: string): void {
  try {
    checkUrl(url);
  } catch (error) {
    throw new InitialClusterError(`error setting up initial cluster: ${error instanceof Error ? error.message : String(error)}`);
  }
}

/** As `--initial-cluster` would say it, in a fixed order. */
function shown(initialCluster: InitialCluster): string {
  const listed = Object.entries(initialCluster).flatMap(([name, urls]) => urls.map((url) => `${name}=${url}`));
  return listed.sort().join();
}

function sameUrls(some: readonly string[], others: readonly string[]): boolean {
  return [...some].sort().join() === [...others].sort().join();
}
