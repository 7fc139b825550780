/** Private tools of this repository's tests: launchers of real server processes and a client that sends single raw messages. */

export { eventually, within } from './condition.ts';
export { type EtcdLine, type EtcdOptions, etcdBinary, etcdVersion, launchEtcd } from './etcd-process.ts';
export { freePort } from './free-port.ts';
export { type Answer, type RawCallOptions, RawClient, RawStream } from './raw-client.ts';
export type { ProcessExit, RunningProcess } from './running-process.ts';
export { ScratchDir } from './scratch-dir.ts';
export { launchServer, type ServerOptions, serverScript } from './server-process.ts';
