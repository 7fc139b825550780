import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { freePort } from './free-port.ts';
import { launch, type ProcessRecipe, type RunningProcess } from './running-process.ts';

/** The release lines a test may ask for, as folders of `ETCD_BIN_DIR`. */
export type EtcdLine = '3.5' | '3.4';

/** Path of a stock binary, or undefined where `ETCD_BIN_DIR` is not set or does not hold it. */
export function etcdBinary(line: EtcdLine, tool: 'etcd' | 'etcdctl'): string | undefined {
  const binaries = process.env['ETCD_BIN_DIR'];
  if (binaries === undefined || binaries === '') return undefined;
  const path = join(binaries, line, tool);
  return existsSync(path) ? path : undefined;
}

/** `major.minor.patch` as the binary itself says, asked once. */
export function etcdVersion(line: EtcdLine): string {
  const known = versions.get(line);
  if (known !== undefined) return known;
  const said = execFileSync(etcdBinaryOf(line), ['--version'], { encoding: 'utf8' });
  const version = /etcd Version: (\d+\.\d+\.\d+)/.exec(said)?.[1];
  if (version === undefined) throw new Error(`no version in: ${said}`);
  versions.set(line, version);
  return version;
}

export interface EtcdOptions {
  readonly version: EtcdLine;
  /** Further flags, as on etcd's own command line. */
  readonly flags?: readonly string[];
  /** Have the client port speak TLS. Default: plain TCP. */
  readonly tls?: EtcdTls | undefined;
}

/** Paths of PEM files. */
export interface EtcdTls {
  readonly certFile: string;
  readonly keyFile: string;
  /** Take only clients with a certificate of one of these authorities. Default: any client. */
  readonly clientCaFile?: string | undefined;
}

/**
 * Starts a stock etcd of one member on free ports of 127.0.0.1 and a new data dir; resolves when it answers `/health` with true.
 *
 * @throws when `ETCD_BIN_DIR` has no such binary: ask {@link etcdBinary} first where that is no failure.
 */
export async function launchEtcd(options: EtcdOptions): Promise<RunningProcess> {
  const binary = etcdBinaryOf(options.version);
  const peerPort = await freePort();
  const peerUrl = `http://127.0.0.1:${peerPort}`;
  const { tls } = options;
  const scheme = tls === undefined ? 'http' : 'https';
  // The client door may ask for certificates: then health is asked for at one of its own.
  const healthUrl = tls === undefined ? undefined : `http://127.0.0.1:${await freePort()}`;
  const recipe: ProcessRecipe = {
    name: `etcd ${etcdVersion(options.version)}`,
    version: etcdVersion(options.version),
    scheme,
    firstPort: freePort,
    command: (dataDir, port, flags) => [
      binary,
      ...['--name', 'default', '--data-dir', dataDir, '--log-level', 'error'],
      ...['--listen-client-urls', `${scheme}://127.0.0.1:${port}`, '--advertise-client-urls', `${scheme}://127.0.0.1:${port}`],
      ...(healthUrl === undefined ? [] : ['--listen-metrics-urls', healthUrl]),
      ...tlsFlags(tls),
      ...['--listen-peer-urls', peerUrl, '--initial-advertise-peer-urls', peerUrl, '--initial-cluster', `default=${peerUrl}`],
      ...flags,
    ],
    readyAt: async (_child, port) => {
      await untilHealthy(`${healthUrl ?? `http://127.0.0.1:${port}`}/health`, '"health":"true"');
      return port;
    },
  };
  return launch(recipe, options.flags);
}

function tlsFlags(tls: EtcdTls | undefined): readonly string[] {
  if (tls === undefined) return [];
  const clients = tls.clientCaFile === undefined ? [] : ['--client-cert-auth', '--trusted-ca-file', tls.clientCaFile];
  return ['--cert-file', tls.certFile, '--key-file', tls.keyFile, ...clients];
}

const versions = new Map<EtcdLine, string>();

/** Path of a stock etcd. @throws when `ETCD_BIN_DIR` does not hold it */
export function etcdBinaryOf(line: EtcdLine): string {
  const binary = etcdBinary(line, 'etcd');
  if (binary === undefined) throw new Error(`no etcd ${line}: set ETCD_BIN_DIR to a folder holding ${line}/etcd and ${line}/etcdctl`);
  return binary;
}

/** Polls: a stock etcd tells nobody when it is ready. Ends with the launcher's deadline or the process, whichever comes first. */
export async function untilHealthy(url: string, wanted: string): Promise<void> {
  for (let attempt = 0; attempt < 2000; attempt++) {
    try {
      const answer = await fetch(url, { signal: AbortSignal.timeout(2000) });
      if ((await answer.text()).includes(wanted)) return;
    } catch {
      // Not listening yet, or no leader yet: that is what is being waited for.
    }
    await new Promise((resolve) => setTimeout(resolve, 15));
  }
  throw new Error(`never healthy: ${url}`);
}
