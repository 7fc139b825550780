import { maxBodyBytes } from './storage/wal/record.ts';

/** What a member is bounded by, and its times, unless it is told otherwise: etcd's defaults. */
export interface MemberSettings {
  /** Milliseconds between ticks, at least 1. */
  readonly heartbeatMs: number;
  /** Milliseconds without a leader before an election: at least five heartbeats, at most 50,000. */
  readonly electionMs: number;
  /** Bytes of a request that goes through the log. The doors take 512 KiB more, so that such a request is refused in words of its own. At most 63 MiB. */
  readonly maxRequestBytes: number;
  /** Operations in a txn. */
  readonly maxTxnOps: number;
  /** Milliseconds after which a watch that asked for it, and had no events, is told the revision. At least 100. */
  readonly watchProgressNotifyMs: number;
  /** Refuse a change of the members that the cluster might not survive: with members that have not started, or cannot be reached. */
  readonly strictReconfigCheck: boolean;
  /** Most learners there may be. */
  readonly maxLearners: number;
  /** Ask whether an election could be won before calling one. */
  readonly preVote: boolean;
  /** Applied entries that are kept for members that lag; one that lags more is brought a snapshot. */
  readonly snapshotCatchUpEntries: number;
  /** Bytes the database may grow to before the NOSPACE alarm. 0: 2 GiB. Below 0: not bounded. */
  readonly quotaBackendBytes: number;
  /** What {@link autoCompactionRetention} counts. */
  readonly autoCompactionMode: 'periodic' | 'revision';
  /** The history the leader keeps: milliseconds of it, or revisions. 0: all. */
  readonly autoCompactionRetention: number;
  /** Compare with the other members before serving anybody. */
  readonly initialCorruptCheck: boolean;
  /** Milliseconds between comparisons of the members' states by the leader; 0: none. Default 4 hours, where etcd's is none. */
  readonly corruptCheckMs: number;
}

export const defaultSettings: MemberSettings = {
  heartbeatMs: 100,
  electionMs: 1000,
  maxRequestBytes: 1.5 * 1024 * 1024,
  maxTxnOps: 128,
  watchProgressNotifyMs: 10 * 60 * 1000,
  strictReconfigCheck: true,
  maxLearners: 1,
  preVote: true,
  snapshotCatchUpEntries: 5000,
  quotaBackendBytes: 0,
  autoCompactionMode: 'periodic',
  autoCompactionRetention: 0,
  initialCorruptCheck: false,
  corruptCheckMs: 4 * 60 * 60 * 1000,
};

/** What was said, and the defaults for the rest. */
export function settingsOf(given: Partial<MemberSettings>): MemberSettings {
  const entries = Object.entries(defaultSettings).map(([name, value]) => [name, given[name as keyof MemberSettings] ?? value]);
  return Object.fromEntries(entries) as MemberSettings;
}

const defaultQuotaBytes = 2 * 1024 * 1024 * 1024;

/** The bound that {@link MemberSettings.quotaBackendBytes} sets; 0: none. */
export function quotaBytesOf({ quotaBackendBytes }: Pick<MemberSettings, 'quotaBackendBytes'>): number {
  return quotaBackendBytes === 0 ? defaultQuotaBytes : Math.max(0, quotaBackendBytes);
}

/** A request is one record of the log, which has a bound, together with who sent it. */
const requestBytesMax = maxBodyBytes - 1024 * 1024;

/** What the doors take above {@link MemberSettings.maxRequestBytes}. */
export const grpcOverheadBytes: number = 512 * 1024;

/** A stopping server waits this long for the requests it has taken in. Milliseconds. */
export const drainMs = 5_000;

/** Why these settings cannot be, in etcd's words; undefined when they can. */
export function settingsProblem(settings: MemberSettings): string | undefined {
  const { heartbeatMs, electionMs, maxRequestBytes, autoCompactionMode } = settings;
  // From a configuration it may be anything. What is no number is neither above nor below any bound.
  for (const name of Object.keys(defaultSettings) as (keyof MemberSettings)[]) {
    const [value, expected] = [settings[name], typeof defaultSettings[name]];
    if (typeof value !== expected || Number.isNaN(value)) return `${name} must be a ${expected}, not ${value}`;
  }
  if (!['periodic', 'revision'].includes(autoCompactionMode)) return `unknown auto-compaction-mode "${autoCompactionMode}"`;
  if (heartbeatMs <= 0) return `--heartbeat-interval must be >0 (set to ${heartbeatMs}ms)`;
  if (electionMs <= 0) return `--election-timeout must be >0 (set to ${electionMs}ms)`;
  if (5 * heartbeatMs > electionMs) {
    return `--election-timeout[${electionMs}ms] should be at least as 5 times as --heartbeat-interval[${heartbeatMs}ms]`;
  }
  if (electionMs > 50_000) return `--election-timeout[${electionMs}ms] is too long, and should be set less than 50000ms`;
  if (maxRequestBytes > requestBytesMax) return `--max-request-bytes must be at most ${requestBytesMax} (set to ${maxRequestBytes})`;
  return undefined;
}
