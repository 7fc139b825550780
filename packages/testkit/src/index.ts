/** Private tools of this repository's tests: launchers of real server processes and a client that sends single raw messages. */

export { commitPerEntry, StalledBackend } from './backend-faults.ts';
export { eventually, within } from './condition.ts';
export { type EtcdLine, type EtcdOptions, etcdBinary, etcdVersion, launchEtcd } from './etcd-process.ts';
export { freePort } from './free-port.ts';
export { type Answer, type RawCallOptions, RawClient, RawStream } from './raw-client.ts';
export { grpcFrame, type RawGrpcRequest, type RawGrpcResponse, rawGrpcCall } from './raw-http2.ts';
export type { ProcessExit, RunningProcess } from './running-process.ts';
export { ScratchDir } from './scratch-dir.ts';
export { type ScriptedClient, scriptedClient } from './scripted-client.ts';
export { ScriptedCall, ScriptedConnection, type ScriptedFailure, ScriptedStream, ScriptedTransport } from './scripted-transport.ts';
export { launchServer, type ServerOptions, serverScript } from './server-process.ts';
export { type TestTarget, testTargets } from './targets.ts';
export { type Direction, TcpProxy } from './tcp-proxy.ts';
