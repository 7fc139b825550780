import { checkUrl, parseListenUrl } from './api/listener-url.ts';
import { type Flag, type GivenFlags, parseCount, parseDuration, readFlags, UsageError } from './flag.ts';
import { type LogLevel, logLevels } from './json-log.ts';
import { defaultSettings, type MemberSettings, settingsProblem } from './limits.ts';

/** What a started executable is to do. */
export interface Config extends MemberSettings {
  readonly name: string;
  readonly dataDir: string;
  readonly listenClientUrls: readonly string[];
  readonly advertiseClientUrls: readonly string[];
  readonly listenPeerUrls: readonly string[];
  readonly initialAdvertisePeerUrls: readonly string[];
  readonly initialClusterToken: string;
  /** `existing`: the member has been in a cluster before. It founds none. */
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
    help: 'Checked; unused while a cluster has one member.',
  },
  {
    name: 'initial-advertise-peer-urls',
    fallback: 'http://localhost:2380',
    check: checkUrls,
    help: "This member's peer URLs. They make up its id.",
  },
  { name: 'initial-cluster', help: "The members that found the cluster, 'name=url,...'. This one alone in this version." },
  { name: 'initial-cluster-token', fallback: 'etcd-cluster', help: 'Told apart from other clusters by it.' },
  { name: 'initial-cluster-state', fallback: 'new', check: oneOf('new', 'existing'), help: "'new' or 'existing'." },
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
  checkCluster(name, initialAdvertisePeerUrls, initialClusterOf(values, name, initialAdvertisePeerUrls));
  return {
    name,
    dataDir: stated('data-dir') || `${name}.etcd`,
    listenClientUrls: listenClientUrls.length > 0 ? listenClientUrls : ['http://localhost:2379'],
    advertiseClientUrls: listOf(stated('advertise-client-urls')),
    listenPeerUrls: listOf(stated('listen-peer-urls')),
    initialAdvertisePeerUrls,
    initialClusterToken: stated('initial-cluster-token'),
    initialClusterState: stated('initial-cluster-state') === 'existing' ? 'existing' : 'new',
    heartbeatMs: parseCount(stated('heartbeat-interval')),
    electionMs: parseCount(stated('election-timeout')),
    maxRequestBytes: parseCount(stated('max-request-bytes')),
    maxTxnOps: parseCount(stated('max-txn-ops')),
    watchProgressNotifyMs: parseDuration(stated('watch-progress-notify-interval')),
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

/** As etcd: who gives a name of its own need not name the cluster's only member again. */
function initialClusterOf(values: ReadonlyMap<string, string>, name: string, peerUrls: readonly string[]): string {
  const given = values.get('initial-cluster');
  if (given !== undefined && given !== '') return given;
  if (name === 'default') return 'default=http://localhost:2380';
  return name === '' ? '' : peerUrls.map((url) => `${name}=${url}`).join(',');
}

function checkCluster(name: string, peerUrls: readonly string[], cluster: string): void {
  const urlsByName = new Map<string, string[]>();
  for (const entry of listOf(cluster)) {
    const equals = entry.indexOf('=');
    const [member, url] = [entry.slice(0, Math.max(0, equals)), entry.slice(equals + 1)];
    urlsByName.set(member, [...(urlsByName.get(member) ?? []), url]);
  }
  const own = urlsByName.get(name);
  if (own === undefined) throw new UsageError(1, `couldn't find local name "${name}" in the initial cluster configuration`);
  for (const url of [...urlsByName.values()].flat()) checkClusterUrl(url);
  if ([...own].sort().join() !== [...peerUrls].sort().join()) {
    const clause = own.map((url) => `${name}=${url}`).join();
    throw new UsageError(1, `--initial-cluster has ${clause} but missing from --initial-advertise-peer-urls=${peerUrls.join()}`);
  }
  if (urlsByName.size > 1) throw new UsageError(1, 'a cluster of more than one member is not supported by this version (see ROADMAP.md)');
}

function checkClusterUrl(url: string): void {
  try {
    checkUrl(url);
  } catch (error) {
    throw new UsageError(1, `error setting up initial cluster: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function listOf(value: string): string[] {
  return value === '' ? [] : value.split(',').map((part) => part.trim());
}

function oneOf(...allowed: readonly string[]): (value: string) => void {
  return (value) => {
    if (!allowed.includes(value)) throw new Error('invalid value');
  };
}
