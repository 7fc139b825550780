import type { ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { etcdApiVersion } from '@conclave/protocol';
import { launch, type ProcessRecipe, type RunningProcess } from './running-process.ts';

export interface ServerOptions {
  /** Further flags, as on etcd's own command line. */
  readonly flags?: readonly string[];
  /** Options of Node itself, before the script. */
  readonly nodeFlags?: readonly string[];
  /** Default: a new temporary directory, removed at the end. */
  readonly dataDir?: string;
  /** Variables of its environment. */
  readonly environment?: Readonly<Record<string, string>>;
}

/** Starts `conclave-server`, as built, on a port of its own choice and a new data dir; resolves when it says that it is ready. */
export function launchServer(options: ServerOptions = {}): Promise<RunningProcess> {
  const recipe: ProcessRecipe = {
    name: 'conclave-server',
    version: etcdApiVersion,
    dataDir: options.dataDir,
    environment: options.environment,
    firstPort: () => Promise.resolve(0),
    command: (dataDir, port, flags) => [
      process.execPath,
      ...(options.nodeFlags ?? []),
      serverScript(),
      ...['--name', 'default', '--data-dir', dataDir],
      ...['--listen-client-urls', `http://127.0.0.1:${port}`, '--advertise-client-urls', `http://127.0.0.1:${port}`],
      ...['--listen-peer-urls', 'http://127.0.0.1:0'],
      ...flags,
    ],
    readyAt: (child) => announcedPort(child),
  };
  return launch(recipe, options.flags);
}

/** The file that the package's `bin` names. It exists after a build. */
export function serverScript(): string {
  const manifest = createRequire(import.meta.url).resolve('@conclave/server/package.json');
  const { bin } = JSON.parse(readFileSync(manifest, 'utf8')) as { bin: Record<string, string> };
  return join(dirname(manifest), bin['conclave-server'] ?? '');
}

/** The line of the log that says `ready to serve client requests` names the port really bound. */
export function announcedPort(child: ChildProcess): Promise<number> {
  return new Promise((resolve) => {
    for (const pipe of [child.stdout, child.stderr]) {
      if (pipe === null) continue;
      createInterface({ input: pipe }).on('line', (line) => {
        if (!line.includes('ready to serve client requests')) return;
        const port = /127\.0\.0\.1:(\d+)/.exec(line)?.[1];
        if (port !== undefined) resolve(Number(port));
      });
    }
  });
}
