import { parseListenUrl } from './api/listener-url.ts';
import { type Flag, type GivenFlags, parseBoolean, parseCount, parseDuration, parseInteger, readFlags, UsageError } from './flag.ts';
import { type LogLevel, logLevels } from './json-log.ts';
import { defaultSettings, type MemberSettings, settingsProblem } from './limits.ts';
import type { InitialCluster } from './membership/initial-cluster.ts';
import { checkUrl } from './membership/member-url.ts';

/** What a started executable is to do. */
export interface Config extends MemberSettings {
  readonly name: string;
  readonly dataDir: string;
  readonly listenClientUrls: readonly string[];
  readonly advertiseClientUrls: readonly string[];
  readonly listenPeerUrls: readonly string[];
  readonly initialAdvertisePeerUrls: readonly string[];
  /** Who founds the cluster, or who is in it when the member joins. Of no account once the member has been in a cluster. */
  readonly initialCluster: InitialCluster;
  readonly initialClusterToken: string;
  /** `existing`: a member that has never been in a cluster joins one, to which it was added, and founds none. */
  readonly initialClusterState: 'new' | 'existing';
  readonly logLevel: LogLevel;
}

export type Command =
  | { readonly kind: 'serve'; readonly config: Config; readonly warnings: readonly string[] }
  | { readonly kind: 'version' }
  | { readonly kind: 'help' };

const checkUrls = (value: string): void => listOf(value).forEach(checkUrl);

const flags: readonly Flag[] = [
  { name: 'name', fallback: 'default', help: 'Human-readable name of this member.' },
  { name: 'data-dir', help: "Folder of everything this member keeps. Default: the name and '.etcd'." },
  {
    name: 'listen-client-urls',
    fallback: 'http://localhost:2379',
    check: checkUrls,
    help: 'Where to serve clients. Port 0: any free one.',
  },
  {
    name: 'advertise-client-urls',
    fallback: 'http://localhost:2379',
    check: checkUrls,
    help: 'What the member list tells clients. Port 0: the one really bound.',
  },
  {
    name: 'listen-peer-urls',
    fallback: 'http://localhost:2380',
    check: checkUrls,
    help: 'Where to serve the other members.',
  },
  {
    name: 'initial-advertise-peer-urls',
    fallback: 'http://localhost:2380',
    check: checkUrls,
    help: "This member's peer URLs. They make up its id.",
  },
  { name: 'initial-cluster', help: "The members that found the cluster, or are in it, 'name=url,...'." },
  { name: 'initial-cluster-token', fallback: 'etcd-cluster', help: 'Told apart from other clusters by it.' },
  {
    name: 'initial-cluster-state',
    fallback: 'new',
    check: oneOf('new', 'existing'),
    help: "'new' founds a cluster, 'existing' joins one that this member was added to.",
  },
  {
    name: 'strict-reconfig-check',
    fallback: `${defaultSettings.strictReconfigCheck}`,
    isBoolean: true,
    check: parseBoolean,
    help: 'Refuse changes of the members that the cluster might not survive.',
  },
  {
    name: 'max-learners',
    alias: 'experimental-max-learners',
    fallback: `${defaultSettings.maxLearners}`,
    check: parseCount,
    help: 'Most learners there may be.',
  },
  {
    name: 'pre-vote',
    fallback: `${defaultSettings.preVote}`,
    isBoolean: true,
    check: parseBoolean,
    help: 'Ask whether an election could be won before calling one.',
  },
  { name: 'snapshot-count', fallback: '10000', check: parseCount, help: 'Without effect: the state on disk is never far behind.' },
  {
    name: 'snapshot-catchup-entries',
    alias: 'experimental-snapshot-catchup-entries',
    fallback: `${defaultSettings.snapshotCatchUpEntries}`,
    check: parseCount,
    help: 'Applied entries kept for members that lag.',
  },
  { name: 'max-snapshots', fallback: '5', check: parseCount, help: 'Without effect: snapshots are made when a member needs one.' },
  { name: 'max-wals', fallback: '5', check: parseCount, help: 'Without effect: a log file goes as soon as nobody needs it.' },
  {
    name: 'quota-backend-bytes',
    fallback: `${defaultSettings.quotaBackendBytes}`,
    check: parseInteger,
    help: 'Bytes the database may grow to. 0: 2 GiB; below 0: any number.',
  },
  {
    name: 'auto-compaction-mode',
    fallback: defaultSettings.autoCompactionMode,
    help: "'periodic' keeps a time of history, 'revision' a number of revisions.",
  },
  {
    name: 'auto-compaction-retention',
    fallback: `${defaultSettings.autoCompactionRetention}`,
    help: 'History to keep: a duration or hours, or a number of revisions. 0: all.',
  },
  {
    name: 'experimental-initial-corrupt-check',
    fallback: `${defaultSettings.initialCorruptCheck}`,
    isBoolean: true,
    check: parseBoolean,
    help: 'Compare with the other members before serving anybody.',
  },
  {
    name: 'corrupt-check-time',
    alias: 'experimental-corrupt-check-time',
    fallback: '4h',
    check: parseDuration,
    help: "How often the members' states are compared. 0: never.",
  },
  { name: 'heartbeat-interval', fallback: `${defaultSettings.heartbeatMs}`, check: parseCount, help: 'Milliseconds.' },
  {
    name: 'election-timeout',
    fallback: `${defaultSettings.electionMs}`,
    check: parseCount,
    help: 'Milliseconds, at least five heartbeats.',
  },
  {
    name: 'max-request-bytes',
    fallback: `${defaultSettings.maxRequestBytes}`,
    check: parseCount,
    help: 'Largest request that changes anything.',
  },
  { name: 'max-txn-ops', fallback: `${defaultSettings.maxTxnOps}`, check: parseCount, help: 'Operations in a transaction.' },
  {
    name: 'watch-progress-notify-interval',
    alias: 'experimental-watch-progress-notify-interval',
    fallback: '10m',
    check: parseDuration,
    help: 'How often idle watches that asked for it are told the revision.',
  },
  { name: 'log-level', fallback: 'info', check: oneOf(...logLevels), help: `${logLevels.join(', ')}.` },
];

/**
 * What the command line and the environment ask for. Flags and variables are etcd's, those of them that mean something here; a flag wins over its
 * variable.
 *
 * @throws UsageError in etcd's words, with the exit code
 */
export function parseConfig(argv: readonly string[], env: Readonly<Record<string, string | undefined>>): Command {
  const given = readFlags(flags, ['version', 'help', 'h'], argv, env);
  if (given.switches.has('help') || given.switches.has('h')) return { kind: 'help' };
  if (given.switches.has('version')) return { kind: 'version' };
  const config = configOf(given);
  const problem = settingsProblem(config);
  if (problem !== undefined) throw new UsageError(1, problem);
  return { kind: 'serve', config, warnings: given.warnings };
}

/** The text of `--help`. */
export function usage(): string {
  const lines = flags.map(({ name, fallback, help }) => `  --${name}${fallback === undefined ? '' : ` '${fallback}'`}\n    ${help}`);
  const head = 'Usage: conclave-server [flags]\n\nEvery flag is also an environment variable: --data-dir is ETCD_DATA_DIR. A flag wins.\n';
  return `${head}\n${lines.join('\n')}\n  --version\n    Show the versions.\n  --help\n    Show this.\n`;
}

function configOf({ values }: GivenFlags): Config {
  const stated = (name: string): string => values.get(name) ?? flags.find((flag) => flag.name === name)?.fallback ?? '';
  const name = stated('name');
  const listenClientUrls = listOf(stated('listen-client-urls'));
  if (values.has('listen-client-urls') && listenClientUrls.length > 0 && !values.has('advertise-client-urls')) {
    throw new UsageError(1, '--advertise-client-urls is required when --listen-client-urls is set explicitly');
  }
  for (const url of [...listenClientUrls, ...listOf(stated('listen-peer-urls'))]) checkBinding(url);
  const initialAdvertisePeerUrls = listOf(stated('initial-advertise-peer-urls'));
  const autoCompactionMode = stated('auto-compaction-mode') as MemberSettings['autoCompactionMode'];
  return {
    name,
    dataDir: stated('data-dir') || `${name}.etcd`,
    listenClientUrls: listenClientUrls.length > 0 ? listenClientUrls : ['http://localhost:2379'],
    advertiseClientUrls: listOf(stated('advertise-client-urls')),
    listenPeerUrls: listOf(stated('listen-peer-urls')),
    initialAdvertisePeerUrls,
    initialCluster: initialClusterFrom(statedCluster(values, name, initialAdvertisePeerUrls)),
    initialClusterToken: stated('initial-cluster-token'),
    initialClusterState: stated('initial-cluster-state') === 'existing' ? 'existing' : 'new',
    heartbeatMs: parseCount(stated('heartbeat-interval')),
    electionMs: parseCount(stated('election-timeout')),
    maxRequestBytes: parseCount(stated('max-request-bytes')),
    maxTxnOps: parseCount(stated('max-txn-ops')),
    watchProgressNotifyMs: parseDuration(stated('watch-progress-notify-interval')),
    strictReconfigCheck: parseBoolean(stated('strict-reconfig-check')),
    maxLearners: parseCount(stated('max-learners')),
    preVote: parseBoolean(stated('pre-vote')),
    snapshotCatchUpEntries: parseCount(stated('snapshot-catchup-entries')),
    quotaBackendBytes: parseInteger(stated('quota-backend-bytes')),
    autoCompactionMode,
    autoCompactionRetention: parseRetention(autoCompactionMode, stated('auto-compaction-retention')),
    initialCorruptCheck: parseBoolean(stated('experimental-initial-corrupt-check')),
    corruptCheckMs: parseDuration(stated('corrupt-check-time')),
    logLevel: logLevels.find((level) => level === stated('log-level')) ?? 'info',
  };
}

function checkBinding(url: string): void {
  try {
    parseListenUrl(url);
  } catch (error) {
    throw new UsageError(1, error instanceof Error ? error.message : String(error));
  }
}

/** Milliseconds, or revisions. A bare number of a time is hours; a duration of revisions is as many as it has nanoseconds, as etcd has it. */
function parseRetention(mode: MemberSettings['autoCompactionMode'], text: string): number {
  const isRevisions = mode === 'revision';
  if (/^\d+$/.test(text)) return Number(text) * (isRevisions ? 1 : hourMs);
  try {
    return parseDuration(text) * (isRevisions ? nanosecondsPerMs : 1);
  } catch {
    const problem = /^[-+]?\d*\.?\d*$/.test(text) ? `missing unit in duration "${text}"` : `invalid duration "${text}"`;
    throw new UsageError(1, `error parsing CompactionRetention: time: ${problem}`);
  }
}

const hourMs = 3_600_000;
const nanosecondsPerMs = 1_000_000;

/** As etcd: who gives a name of its own need not name the cluster's only member again. */
function statedCluster(values: ReadonlyMap<string, string>, name: string, peerUrls: readonly string[]): string {
  const given = values.get('initial-cluster');
  if (given !== undefined && given !== '') return given;
  if (name === 'default') return 'default=http://localhost:2380';
  return name === '' ? '' : peerUrls.map((url) => `${name}=${url}`).join(',');
}

/** `name=url,...`; a name with several URLs stands several times. Whether a cluster can be made of it is asked only of a member without data. */
function initialClusterFrom(text: string): InitialCluster {
  const urlsByName = new Map<string, string[]>();
  for (const entry of listOf(text)) {
    const equals = entry.indexOf('=');
    const [member, url] = equals < 0 ? [entry, ''] : [entry.slice(0, equals), entry.slice(equals + 1)];
    urlsByName.set(member, [...(urlsByName.get(member) ?? []), url]);
  }
  return Object.fromEntries(urlsByName);
}

function listOf(value: string): string[] {
  return value === '' ? [] : value.split(',').map((part) => part.trim());
}

function oneOf(...allowed: readonly string[]): (value: string) => void {
  return (value) => {
    if (!allowed.includes(value)) throw new Error('invalid value');
  };
}
