#!/usr/bin/env node
import { etcdApiVersion } from '@conclave/protocol';
import { type Runtime, systemRuntime } from '@conclave/wire';
import { type Config, parseConfig, usage } from './config.ts';
import { type ConclaveServer, MemberRemovedError, startServer } from './embed.ts';
import { exitCodeOf } from './exit-code.ts';
import { UsageError } from './flag.ts';
import { jsonLog } from './json-log.ts';
import { conclaveVersion } from './version.ts';

/** The executable: flags in, a member running, a log of JSON lines on stderr. */
async function main(): Promise<void> {
  const command = commandOf();
  if (command.kind === 'version') {
    process.stdout.write(`etcd Version: ${etcdApiVersion}\nConclave Version: ${conclaveVersion}\nNode Version: ${process.version}\n`);
  } else if (command.kind === 'help') {
    process.stdout.write(usage());
  } else {
    const runtime = loggingRuntime(command.config);
    for (const warning of command.warnings) runtime.log.warn({}, warning);
    await serve(command.config, runtime);
  }
}

function commandOf(): ReturnType<typeof parseConfig> {
  try {
    return parseConfig(process.argv.slice(2), process.env);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    process.stderr.write(`${error.message}\n${error.exitCode === 2 ? 'Run conclave-server --help for the flags of this version.\n' : ''}`);
    process.exit(error.exitCode);
  }
}

function loggingRuntime({ logLevel }: Config): Runtime {
  const { wall } = systemRuntime();
  return systemRuntime(jsonLog({ write: (line) => process.stderr.write(line), level: logLevel, wall }));
}

async function serve(config: Config, runtime: Runtime): Promise<void> {
  const die = (error: unknown, message: string): never => {
    runtime.log.error({ error: error instanceof Error ? (error.stack ?? error.message) : String(error) }, message);
    process.exit(exitCodeOf(error));
  };
  process.on('uncaughtException', (error) => die(error, 'uncaught exception'));
  process.on('unhandledRejection', (error) => die(error, 'unhandled rejection'));
  try {
    const server = await startServer({ ...optionsOf(config), runtime });
    server.failed.catch((error: unknown) => {
      if (error instanceof MemberRemovedError) void retire(server, runtime, error);
      else die(error, 'the member has failed');
    });
    stopOnSignals(server, runtime, die);
  } catch (error) {
    if (!(error instanceof MemberRemovedError)) die(error, 'failed to start etcd');
    else endRemoved(runtime, error);
  }
}

function optionsOf(config: Config): Parameters<typeof startServer>[0] {
  const { listenClientUrls, advertiseClientUrls, listenPeerUrls, initialAdvertisePeerUrls, initialClusterToken, ...rest } = config;
  return {
    ...rest,
    listen: listenClientUrls,
    advertise: advertiseClientUrls,
    listenPeers: listenPeerUrls,
    peerUrls: initialAdvertisePeerUrls,
    clusterToken: initialClusterToken,
  };
}

/** Nothing is wrong with a member that was removed: it ends as if it had nothing left to do. */
async function retire(server: ConclaveServer, runtime: Runtime, removed: MemberRemovedError): Promise<void> {
  await server.close().catch((error: unknown) => runtime.log.warn({ error: String(error) }, 'shutting down failed'));
  endRemoved(runtime, removed);
}

function endRemoved(runtime: Runtime, { message }: MemberRemovedError): void {
  runtime.log.info({}, message);
  process.exit(0);
}

/** The first signal drains, then is raised again, so that whoever waits sees what ended the process. The second one does not wait. */
function stopOnSignals(server: ConclaveServer, runtime: Runtime, die: (error: unknown, message: string) => never): void {
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    const stop = (): void => {
      process.removeAllListeners(signal);
      runtime.log.info({ signal }, 'received signal; shutting down');
      server.close().then(
        () => raise(signal),
        (error: unknown) => die(error, 'shutting down failed'),
      );
    };
    process.on(signal, stop);
  }
}

function raise(signal: NodeJS.Signals): void {
  // The first process of a container is not ended by a signal it does not handle.
  if (process.pid === 1) process.exit(0);
  process.removeAllListeners(signal);
  process.kill(process.pid, signal);
}

await main();
