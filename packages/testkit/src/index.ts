/** Private tools of this repository's tests: launchers of real server processes and a client that sends single raw messages. */

export { commitPerEntry, StalledBackend } from './backend-faults.ts';
export { CertificateAuthority, type IssuedCertificate } from './certificates.ts';
export { type CheckOptions, checkHistory } from './checkers/check-history.ts';
export { assertNoFindings, type Finding, showFinding } from './checkers/finding.ts';
export { checkHashes, type HashSample } from './checkers/hashes.ts';
export { checkFencing, checkHolds } from './checkers/holds.ts';
export { EtcdModel } from './checkers/model.ts';
export { RaftSafety, type RaftSample, type TracedEntry } from './checkers/raft-safety.ts';
export { type Author, type Replay, type ReplayOptions, replay } from './checkers/replay.ts';
export { checkWatches, type WatchTruth } from './checkers/watches.ts';
export { type ClusterMember, type ClusterOptions, launchCluster, type MemberOptions, type ProcessCluster } from './cluster-process.ts';
export { eventually, within } from './condition.ts';
export { type EtcdLine, type EtcdOptions, type EtcdTls, etcdBinary, etcdVersion, launchEtcd } from './etcd-process.ts';
export { freePort } from './free-port.ts';
export {
  type CompactRequest,
  type CompactResponse,
  type Compare,
  type DeleteRangeRequest,
  type DeleteRangeResponse,
  type FencedWrite,
  type History,
  type HistoryRecord,
  HistoryRecorder,
  type Hold,
  historyLines,
  type KeySpan,
  type KeyValue,
  type LeaseGrantRequest,
  type LeaseGrantResponse,
  type LeaseId,
  type LeaseKeepAliveRequest,
  type LeaseKeepAliveResponse,
  type LeaseRevokeRequest,
  type LeaseRevokeResponse,
  type LeaseTimeToLiveRequest,
  type LeaseTimeToLiveResponse,
  type OpenWatch,
  type Operation,
  type Outcome,
  type PendingOperation,
  type PutRequest,
  type PutResponse,
  type RangeRequest,
  type RangeResponse,
  type Request,
  type Response,
  readHistory,
  recordLine,
  type TxnOperation,
  type TxnOperationResponse,
  type TxnRequest,
  type TxnResponse,
  type Watch,
  type WatchEvent,
  type WatchMessage,
  type WatchOpening,
  type WatchRequest,
} from './history.ts';
export { type LinkedMember, type LinkRule, type LinkTap, PeerLinks } from './net-links.ts';
export { type ProcessFault, ProcessFaults } from './process-faults.ts';
export { type Answer, type RawCallOptions, RawClient, RawStream } from './raw-client.ts';
export { grpcFrame, type RawGrpcRequest, type RawGrpcResponse, rawGrpcCall } from './raw-http2.ts';
export type { ProcessExit, RunningProcess } from './running-process.ts';
export { ScratchDir } from './scratch-dir.ts';
export { type ScriptedClient, scriptedClient } from './scripted-client.ts';
export { ScriptedCall, ScriptedConnection, type ScriptedFailure, ScriptedStream, ScriptedTransport } from './scripted-transport.ts';
export { type ScriptedChange, ScriptedWatches } from './scripted-watch.ts';
export { launchServer, type ServerOptions, serverScript } from './server-process.ts';
export { type RecordingOptions, recordingTransport } from './sim/recording-transport.ts';
export { type TestTarget, targetTitle, testTargets } from './targets.ts';
export { type Direction, TcpProxy } from './tcp-proxy.ts';
