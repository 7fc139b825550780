import { describe, expect, test } from 'vitest';
import { type Config, parseConfig, usage } from './config.ts';
import { parseDuration, UsageError } from './flag.ts';

function configOf(argv: readonly string[], env: Record<string, string> = {}): Config {
  const command = parseConfig(argv, env);
  if (command.kind !== 'serve') throw new Error(`not serve but ${command.kind}`);
  return command.config;
}

function refusal(argv: readonly string[], env: Record<string, string> = {}): [number, string] {
  try {
    parseConfig(argv, env);
  } catch (error) {
    if (error instanceof UsageError) return [error.exitCode, error.message];
    throw error;
  }
  throw new Error(`accepted: ${argv.join(' ')}`);
}

test('without flags everything is as in etcd', () => {
  expect(configOf([])).toEqual({
    name: 'default',
    dataDir: 'default.etcd',
    listenClientUrls: ['http://localhost:2379'],
    advertiseClientUrls: ['http://localhost:2379'],
    listenPeerUrls: ['http://localhost:2380'],
    initialAdvertisePeerUrls: ['http://localhost:2380'],
    initialCluster: { default: ['http://localhost:2380'] },
    initialClusterToken: 'etcd-cluster',
    initialClusterState: 'new',
    heartbeatMs: 100,
    electionMs: 1000,
    maxRequestBytes: 1572864,
    maxTxnOps: 128,
    watchProgressNotifyMs: 600_000,
    strictReconfigCheck: true,
    maxLearners: 1,
    preVote: true,
    snapshotCatchUpEntries: 5000,
    quotaBackendBytes: 0,
    autoCompactionMode: 'periodic',
    autoCompactionRetention: 0,
    initialCorruptCheck: false,
    // Here etcd never looks.
    corruptCheckMs: 4 * 60 * 60 * 1000,
    logLevel: 'info',
  });
});

test('a flag is given with one dash or two, its value behind it or behind an equals sign', () => {
  for (const argv of [['--data-dir', '/x'], ['-data-dir', '/x'], ['--data-dir=/x'], ['-data-dir=/x']]) {
    expect(configOf(argv).dataDir).toBe('/x');
  }
  expect(configOf(['--initial-cluster-token=a=b']).initialClusterToken).toBe('a=b');
});

test('the folder is named after the member', () => {
  expect(configOf(['--name', 'm1']).dataDir).toBe('m1.etcd');
});

test('lists of URLs are taken apart', () => {
  const urls = 'http://127.0.0.1:1,http://[::1]:2,unix:///run/c.sock';
  expect(configOf(['--listen-client-urls', urls, '--advertise-client-urls', 'http://a.example:1']).listenClientUrls).toEqual(
    urls.split(','),
  );
});

describe('the environment', () => {
  test('gives what no flag gives', () => {
    expect(configOf([], { ETCD_DATA_DIR: '/e', ETCD_MAX_TXN_OPS: '5', ETCD_NAME: '' })).toMatchObject({
      dataDir: '/e',
      maxTxnOps: 5,
      name: 'default',
    });
  });

  test('loses to a flag, and says so', () => {
    const command = parseConfig(['--name', 'flag'], { ETCD_NAME: 'variable', ETCD_NOPE: '1', OTHER: '1' });
    expect(command).toMatchObject({ kind: 'serve', config: { name: 'flag' } });
    expect(command.kind === 'serve' ? command.warnings : []).toEqual([
      'environment variable ETCD_NAME is shadowed by the command-line flag',
      'unrecognized environment variable ETCD_NOPE',
    ]);
  });

  test('with a bad value is refused with exit code 1', () => {
    expect(refusal([], { ETCD_HEARTBEAT_INTERVAL: 'abc' })).toEqual([1, 'invalid value "abc" for ETCD_HEARTBEAT_INTERVAL: parse error']);
  });
});

test('the interval of progress notifications has two names and takes durations', () => {
  expect(configOf(['--watch-progress-notify-interval', '1m30s']).watchProgressNotifyMs).toBe(90_000);
  expect(configOf(['--experimental-watch-progress-notify-interval=100ms']).watchProgressNotifyMs).toBe(100);
  expect(configOf([], { ETCD_EXPERIMENTAL_WATCH_PROGRESS_NOTIFY_INTERVAL: '2s' }).watchProgressNotifyMs).toBe(2000);
});

test('durations are those of Go', () => {
  const cases: [string, number][] = [
    ['0', 0],
    ['10m', 600_000],
    ['1.5s', 1500],
    ['1h2m3s4ms', 3_723_004],
    ['.5h', 1_800_000],
    ['2us', 0.002],
  ];
  for (const [text, milliseconds] of cases) expect([text, parseDuration(text)]).toEqual([text, milliseconds]);
  for (const text of ['', '10', '1d', 'm', '1m 2s', '-1s', '1..2s']) expect(() => parseDuration(text), text).toThrow('parse error');
});

// Exit codes and texts were read from a stock etcd.
describe('refused as etcd refuses it:', () => {
  const cases: readonly [readonly string[], number, string][] = [
    [['--nope'], 2, 'flag provided but not defined: -nope'],
    [['--nope=1'], 2, 'flag provided but not defined: -nope'],
    [['--quota-backend-bytes', 'foo'], 2, 'invalid value "foo" for flag -quota-backend-bytes: parse error'],
    [['--snapshot-count', '-1'], 2, 'invalid value "-1" for flag -snapshot-count: parse error'],
    [['--max-wals', 'foo'], 2, 'invalid value "foo" for flag -max-wals: parse error'],
    [['--strict-reconfig-check=foo'], 2, 'invalid boolean value "foo" for -strict-reconfig-check: parse error'],
    [['--pre-vote', 'false'], 1, "'false' is not a valid flag"],
    [['--experimental-corrupt-check-time', 'foo'], 2, 'invalid value "foo" for flag -experimental-corrupt-check-time: parse error'],
    [['--auto-compaction-mode', 'foo'], 1, 'unknown auto-compaction-mode "foo"'],
    [['--auto-compaction-retention', 'foo'], 1, 'error parsing CompactionRetention: time: invalid duration "foo"'],
    [['--auto-compaction-retention=-1'], 1, 'error parsing CompactionRetention: time: missing unit in duration "-1"'],
    [['nope'], 1, "'nope' is not a valid flag"],
    [['--name'], 2, 'flag needs an argument: -name'],
    [['--heartbeat-interval', 'abc'], 2, 'invalid value "abc" for flag -heartbeat-interval: parse error'],
    [['--election-timeout=1e3'], 2, 'invalid value "1e3" for flag -election-timeout: parse error'],
    [['--max-request-bytes', '-1'], 2, 'invalid value "-1" for flag -max-request-bytes: parse error'],
    [['--heartbeat-interval', '0'], 1, '--heartbeat-interval must be >0 (set to 0ms)'],
    [
      ['--heartbeat-interval', '100', '--election-timeout', '400'],
      1,
      '--election-timeout[400ms] should be at least as 5 times as --heartbeat-interval[100ms]',
    ],
    [['--election-timeout', '60000'], 1, '--election-timeout[60000ms] is too long, and should be set less than 50000ms'],
    [['--listen-client-urls', 'http://127.0.0.1:1'], 1, '--advertise-client-urls is required when --listen-client-urls is set explicitly'],
    [
      ['--listen-client-urls', 'foo'],
      2,
      'invalid value "foo" for flag -listen-client-urls: URL scheme must be http, https, unix, or unixs: foo',
    ],
    [
      ['--advertise-client-urls', 'ftp://127.0.0.1:1'],
      2,
      'invalid value "ftp://127.0.0.1:1" for flag -advertise-client-urls: URL scheme must be http, https, unix, or unixs: ftp://127.0.0.1:1',
    ],
    [
      ['--listen-client-urls', 'http://127.0.0.1'],
      2,
      'invalid value "http://127.0.0.1" for flag -listen-client-urls: URL address does not have the form "host:port": http://127.0.0.1',
    ],
    [
      ['--listen-client-urls', 'http://127.0.0.1:1/'],
      2,
      'invalid value "http://127.0.0.1:1/" for flag -listen-client-urls: URL must not contain a path: http://127.0.0.1:1/',
    ],
    [
      ['--listen-client-urls', 'http://foo.bar:1', '--advertise-client-urls', 'http://foo.bar:1'],
      1,
      'expected IP in URL for binding (http://foo.bar:1)',
    ],
    [['--listen-client-urls', 'http://:1', '--advertise-client-urls', 'http://foo.bar:1'], 1, 'expected IP in URL for binding (http://:1)'],
    [['--initial-cluster-state', 'wrong'], 2, 'invalid value "wrong" for flag -initial-cluster-state: invalid value'],
  ];
  test.each(cases)('%j', (argv, exitCode, message) => {
    expect(refusal(argv)).toEqual([exitCode, message]);
  });
});

test('the initial cluster is what was said; a member with a name of its own need not say its URLs twice', () => {
  const clusterOf = (...argv: string[]) => configOf(argv).initialCluster;
  const cluster = 'a=http://127.0.0.1:1,b=http://127.0.0.1:2,a=http://127.0.0.1:3,c';
  expect(clusterOf('--initial-cluster', cluster)).toEqual({
    a: ['http://127.0.0.1:1', 'http://127.0.0.1:3'],
    b: ['http://127.0.0.1:2'],
    c: [''],
  });
  expect(clusterOf('--name', 'm1', '--initial-advertise-peer-urls', 'http://127.0.0.1:1')).toEqual({ m1: ['http://127.0.0.1:1'] });
  expect(clusterOf('--name=')).toEqual({});
  // As in etcd: the default cluster has the default URL, and founding it fails if the member has another.
  expect(clusterOf('--initial-advertise-peer-urls', 'http://127.0.0.1:1')).toEqual({ default: ['http://localhost:2380'] });
});

test('a boolean flag may stand alone, or have its value behind an equals sign', () => {
  expect(configOf(['--experimental-initial-corrupt-check']).initialCorruptCheck).toBe(true);
  expect(configOf(['--strict-reconfig-check=false', '--pre-vote=F'])).toMatchObject({ strictReconfigCheck: false, preVote: false });
  expect(configOf([], { ETCD_PRE_VOTE: '0' }).preVote).toBe(false);
  expect(refusal([], { ETCD_PRE_VOTE: 'no' })).toEqual([1, 'invalid value "no" for ETCD_PRE_VOTE: parse error']);
});

test('what bounds a cluster has its present and its experimental names', () => {
  for (const prefix of ['--', '--experimental-']) {
    expect(configOf([`${prefix}max-learners`, '3', `${prefix}snapshot-catchup-entries=7`])).toMatchObject({
      maxLearners: 3,
      snapshotCatchUpEntries: 7,
    });
    expect(configOf([`${prefix}corrupt-check-time`, '4m']).corruptCheckMs).toBe(240_000);
  }
  expect(configOf(['--quota-backend-bytes', '-1']).quotaBackendBytes).toBe(-1);
  expect(configOf(['--max-wals', '1', '--max-snapshots', '0', '--snapshot-count', '100']).name).toBe('default');
});

test('a retention is a duration, hours, or revisions', () => {
  const retention = (mode: string, text: string): number =>
    configOf(['--auto-compaction-mode', mode, '--auto-compaction-retention', text]).autoCompactionRetention;
  expect(retention('periodic', '2')).toBe(7_200_000);
  expect(retention('periodic', '5m')).toBe(300_000);
  expect(retention('revision', '1000')).toBe(1000);
  expect(retention('revision', '1ms')).toBe(1_000_000);
});

test('what this version cannot do is refused and said', () => {
  expect(refusal(['--listen-client-urls', 'https://127.0.0.1:1'])[1]).toMatch(/TLS is not supported/);
});

test('version and help win over everything but a flag that is none', () => {
  expect(parseConfig(['--version'], {}).kind).toBe('version');
  expect(parseConfig(['-version', '--election-timeout', '1'], {}).kind).toBe('version');
  expect(parseConfig(['--help'], {}).kind).toBe('help');
  expect(parseConfig(['-h'], {}).kind).toBe('help');
  expect(parseConfig(['--version=false'], {}).kind).toBe('serve');
  expect(refusal(['--version', '--nope'])[0]).toBe(2);
  expect(usage()).toContain('--watch-progress-notify-interval');
});

test('a request may not be larger than a record of the log', () => {
  expect(configOf(['--max-request-bytes', '66060288']).maxRequestBytes).toBe(66060288);
  expect(refusal(['--max-request-bytes', '66060289'])).toEqual([1, '--max-request-bytes must be at most 66060288 (set to 66060289)']);
});
