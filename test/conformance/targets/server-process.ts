import { etcdApiVersion } from '@conclave/protocol';
import { launchServer } from '@conclave/testkit';
import type { Settings, Target } from '../target.ts';
import { startedProcess } from './started-process.ts';

/** `conclave-server`, as built. */
export const serverProcessTarget: Target = {
  name: 'conclave-server',
  version: etcdApiVersion,
  isOurs: true,
  hasSocket: true,
  commits: true,
  start: async (settings) => startedProcess(await launchServer({ flags: flagsOf(settings) })),
};

function flagsOf(settings: Settings): readonly string[] {
  const flags: string[] = [];
  const { progressNotifyIntervalMs, maxTxnOps, maxRequestBytes } = settings;
  if (progressNotifyIntervalMs !== undefined) flags.push('--watch-progress-notify-interval', `${progressNotifyIntervalMs}ms`);
  if (maxTxnOps !== undefined) flags.push('--max-txn-ops', `${maxTxnOps}`);
  if (maxRequestBytes !== undefined) flags.push('--max-request-bytes', `${maxRequestBytes}`);
  return flags;
}
