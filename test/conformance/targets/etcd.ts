import { type EtcdLine, etcdBinary, etcdVersion, launchEtcd } from '@conclave/testkit';
import type { Settings, Target } from '../target.ts';
import { startedProcess } from './started-process.ts';

/** The stock binary of a release line, or undefined where it is not installed. */
export function etcdTarget(line: EtcdLine): Target | undefined {
  if (etcdBinary(line, 'etcd') === undefined) return undefined;
  return {
    name: 'etcd',
    version: etcdVersion(line),
    isOurs: false,
    hasSocket: true,
    commits: true,
    start: async (settings) => startedProcess(await launchEtcd({ version: line, flags: flagsOf(settings) })),
  };
}

function flagsOf(settings: Settings): readonly string[] {
  const flags: string[] = [];
  const { progressNotifyIntervalMs, maxTxnOps, maxRequestBytes } = settings;
  // The name it had before 3.6.
  if (progressNotifyIntervalMs !== undefined) flags.push('--experimental-watch-progress-notify-interval', `${progressNotifyIntervalMs}ms`);
  if (maxTxnOps !== undefined) flags.push('--max-txn-ops', `${maxTxnOps}`);
  if (maxRequestBytes !== undefined) flags.push('--max-request-bytes', `${maxRequestBytes}`);
  return flags;
}
