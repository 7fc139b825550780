import { existsSync } from 'node:fs';
import { type EtcdLine, etcdBinary, launchEtcd } from './etcd-process.ts';
import type { RunningProcess } from './running-process.ts';
import { launchServer, serverScript } from './server-process.ts';

/** A server that the same test can be run against. */
export interface TestTarget {
  readonly name: string;
  /** {@link targetTitle} */
  readonly title: string;
  /** Why it cannot be run here; undefined: it can. */
  readonly skip: string | undefined;
  /** Starts it in a process of its own, with a new data dir. */
  start(): Promise<RunningProcess>;
}

/** What a test against it is called: where it is skipped, that says why. */
export function targetTitle({ name, skip }: { readonly name: string; readonly skip?: string | undefined }): string {
  return skip === undefined ? name : `${name} (skipped: ${skip})`;
}

/** Our server and the stock etcds, as far as they are there. A test that needs one that is not is skipped, and the reason is in its name. */
export function testTargets(): readonly TestTarget[] {
  return [ours(), etcd('3.5'), etcd('3.4')];
}

function ours(): TestTarget {
  const isBuilt = existsSync(serverScript());
  return target('conclave-server', isBuilt ? undefined : 'it is not built', () => launchServer());
}

function etcd(version: EtcdLine): TestTarget {
  const isThere = etcdBinary(version, 'etcd') !== undefined;
  return target(`etcd ${version}`, isThere ? undefined : 'ETCD_BIN_DIR does not hold it', () => launchEtcd({ version }));
}

function target(name: string, skip: string | undefined, start: () => Promise<RunningProcess>): TestTarget {
  return { name, title: targetTitle({ name, skip }), skip, start };
}
