import { type Client, type ConnectOptions, connect, preload } from '@conclave/sdk';
import { VirtualRuntime } from '@conclave/testing';
import { ScriptedTransport } from './scripted-transport.ts';

/** A client in virtual time whose servers are the test's own words. */
export interface ScriptedClient {
  readonly runtime: VirtualRuntime;
  readonly script: ScriptedTransport;
  readonly client: Client;
}

/** Connects to `a:1` unless the options say otherwise. */
export async function scriptedClient(
  options: Partial<ConnectOptions> & { readonly seed?: number; readonly prepare?: (script: ScriptedTransport) => void } = {},
): Promise<ScriptedClient> {
  await preload();
  const { seed, prepare, ...connectOptions } = options;
  const runtime = new VirtualRuntime({ seed: seed ?? 1 });
  const script = new ScriptedTransport(runtime);
  prepare?.(script);
  const endpoints = connectOptions.discovery === undefined ? 'a:1' : undefined;
  const client = await runtime.run(connect({ endpoints, runtime, transport: script.transport, ...connectOptions }));
  return { runtime, script, client };
}
