import type { Connection } from '@conclave/wire';

/** What a case may set. Each target translates it to its own options. */
export interface Settings {
  readonly progressNotifyIntervalMs?: number;
  readonly maxTxnOps?: number;
  readonly maxRequestBytes?: number;
}

/** One way to run a server. */
export interface Target {
  readonly name: string;
  /** The etcd release whose behaviour it promises. */
  readonly version: string;
  /** True for our own servers: only they may have an entry in the list of differences. */
  readonly isOurs: boolean;
  readonly hasSocket: boolean;
  /** False: nothing applied ever becomes durable in its backend, so whoever waits for that waits for ever. */
  readonly commits: boolean;
  start(settings: Settings): Promise<StartedTarget>;
}

export interface StartedTarget extends AsyncDisposable {
  /** A new connection, closed by the caller. */
  connect(): Connection;
  /** `host:port` of the client door; undefined for the door in the process. */
  readonly address: string | undefined;
}
