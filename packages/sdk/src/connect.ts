import type { Client } from './client.ts';
import type { ConnectOptions } from './connect-options.ts';

/**
 * Connects to an etcd, or to a server that speaks its protocol.
 *
 * @throws ConclaveError `unavailable` when no endpoint could be reached within `deadlineMs`, `authentication-failed` when the server does not
 * accept the credentials, `invalid-argument`, `cancelled`
 * @example
 * ```ts
 * await using client = await connect({ endpoints: '127.0.0.1:2379' });
 * await client.put('greeting', 'hello');
 * ```
 */
export async function connect(options: ConnectOptions): Promise<Client> {
  const open = loaded ?? (await load());
  return open(options);
}

/**
 * Loads what the first {@link connect} would load: the client itself, and rxjs. Importing this package does not, so that a program which imports
 * it for its types or its errors need not pay. Whoever connects in virtual time calls it before, as that time does not wait for files.
 *
 * @example
 * ```ts
 * await preload(); // so that the first `connect` of this process waits for the server alone
 * ```
 */
export async function preload(): Promise<void> {
  await load();
}

type Open = (options: ConnectOptions) => Promise<Client>;

let loaded: Open | undefined;

async function load(): Promise<Open> {
  loaded = (await import('./open-client.ts')).openClient;
  return loaded;
}
