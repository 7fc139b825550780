import { etcdApiVersion } from '@conclave/protocol';
import { type StoragePorts, startServer } from '@conclave/server';
import { commitPerEntry, ScratchDir, StalledBackend } from '@conclave/testkit';
import type { Settings, StartedTarget, Target } from '../target.ts';

/** Our server in this process, with a data dir, reached through the door that has no socket. */
export const inProcessTarget: Target = {
  ...ours('in process'),
  start: (settings) => startOnDisk(settings, {}),
};

/** The same in memory. */
export const inMemoryTarget: Target = {
  ...ours('in memory'),
  start: (settings) => startServing(settings, {}),
};

/** With a backend whose commits never complete: everything applied stays in the generations over it, and reads must be right from them alone. */
export const stalledTarget: Target = {
  ...ours('in process, no commit ends'),
  commits: false,
  start: (settings) => startStalled(settings),
};

/** With one commit for every entry, and nothing applied until it is durable. */
export const commitPerEntryTarget: Target = {
  ...ours('in process, commit an entry'),
  start: (settings) => startOnDisk(settings, { bounds: commitPerEntry }),
};

function ours(name: string): Omit<Target, 'start'> {
  return { name, version: etcdApiVersion, isOurs: true, hasSocket: false, commits: true };
}

async function startOnDisk(settings: Settings, storage: StoragePorts): Promise<StartedTarget> {
  const dir = new ScratchDir('conformance');
  const started = await startServing(settings, storage, dir.path);
  return {
    ...started,
    async [Symbol.asyncDispose]() {
      await started[Symbol.asyncDispose]();
      dir[Symbol.dispose]();
    },
  };
}

/** A store is full once too much waits for its backend, and here all of it does: the bounds are out of reach of the suite. */
async function startStalled(settings: Settings): Promise<StartedTarget> {
  const stalled: StalledBackend[] = [];
  const backend: StoragePorts['backend'] = (usual) => {
    // The start makes one commit of its own.
    const wrapped = new StalledBackend(usual(), 1);
    stalled.push(wrapped);
    return wrapped;
  };
  const bounds = { flushDelayMs: 1, generationBytesMax: 2 ** 30 };
  const started = await startOnDisk(settings, { backend, bounds });
  return {
    ...started,
    async [Symbol.asyncDispose]() {
      for (const one of stalled) one.releaseAll();
      await started[Symbol.asyncDispose]();
    },
  };
}

async function startServing(settings: Settings, storage: StoragePorts, dataDir?: string): Promise<StartedTarget> {
  const { progressNotifyIntervalMs, maxTxnOps, maxRequestBytes } = settings;
  const server = await startServer({
    storage,
    ...(dataDir !== undefined && { dataDir }),
    ...(progressNotifyIntervalMs !== undefined && { watchProgressNotifyMs: progressNotifyIntervalMs }),
    ...(maxTxnOps !== undefined && { maxTxnOps }),
    ...(maxRequestBytes !== undefined && { maxRequestBytes }),
  });
  return {
    address: undefined,
    connect: () => server.transport(server.name),
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}
