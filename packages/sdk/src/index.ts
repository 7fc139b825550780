/** The client of etcd v3, and of every server that speaks its protocol. */

export type { ConnectionState, Logger } from '@conclave/wire';
export type { Pem, TlsOptions } from '@conclave/wire/grpc-client';
export type { AuthClient, AuthStatus } from './admin/auth-client.ts';
export type { ClusterClient, MemberAdded, MembersOptions } from './admin/cluster-client.ts';
export type { Alarm, AlarmType, MaintenanceClient } from './admin/maintenance-client.ts';
export type { Member } from './admin/member.ts';
export type { HashKvOptions, KvHash, MemberMaintenance, MemberStatus } from './admin/member-maintenance.ts';
export type { Permission, PermissionType } from './admin/permission.ts';
export type { Role, RoleClient } from './admin/role-client.ts';
export type { SnapshotOptions, SnapshotProgress } from './admin/snapshot.ts';
export type { Credential, User, UserClient } from './admin/user-client.ts';
export type { Client } from './client.ts';
export { connect, preload } from './connect.ts';
export type { ConnectOptions } from './connect-options.ts';
export type { Credentials, PasswordCredentials, TokenCredentials } from './connection/authenticator.ts';
export type { EndpointStatus } from './connection/balancer.ts';
export type { ClientState, ClientStatus } from './connection/client-status.ts';
export type { SyncOptions } from './connection/endpoint-sync.ts';
export type { CallAttempt, CallReport, InterceptedCall, Middleware } from './connection/middleware.ts';
export type { RequestOptions } from './connection/procedure.ts';
export type { DiscoveryOptions, SrvRecord } from './connection/srv-discovery.ts';
export {
  type ClientErrorCode,
  ConclaveError,
  type ConclaveErrorInit,
  type ErrorCode,
  type ErrorDetails,
  isConclaveError,
  type Outcome,
} from './errors/conclave-error.ts';
export {
  type Attribute,
  type Comparison,
  type ComparisonOperand,
  type ComparisonResult,
  type KeyConditions,
  key,
} from './kv/comparison.ts';
export { allKeys, fromKey, type KeyRange, prefix, range, type Target } from './kv/key-range.ts';
export type { KeyValue } from './kv/key-value.ts';
export type { CompactOptions } from './kv/kv-client.ts';
export {
  type DeleteOperation,
  type DeleteOptions,
  del,
  type GetOperation,
  type GetOptions,
  get,
  type HeldLease,
  type ListOperation,
  type ListOptions,
  list,
  type PutOperation,
  type PutOptions,
  put,
  type Sort,
} from './kv/operation.ts';
export type { DeleteResult, ListResult, PutResult } from './kv/result.ts';
export type { Scan, ScanOptions } from './kv/scan.ts';
export type { StmOptions } from './kv/stm.ts';
export type { Isolation, StmTransaction } from './kv/stm-transaction.ts';
export type { Integer, Key, Value } from './kv/text.ts';
export { type NestedTxn, type OnceOptions, type Txn, txn } from './kv/txn.ts';
export type { Operation, OperationResult, OperationResults, TxnOperation, TxnOutcome, TxnResult } from './kv/txn-result.ts';
export type { Lease, LeaseState } from './lease/lease.ts';
export type { GrantOptions, LeaseClient, LeaseInfo } from './lease/lease-client.ts';
export type { ClientGauges, Metrics } from './metrics/metrics.ts';
export type { Namespace } from './namespace.ts';
export type { Feed, FeedSink, FeedSource } from './rx/feed.ts';
export type { Watch } from './rx/watch.ts';
export type { Establish, Establishing, HeldFunction } from './session/held-function.ts';
export type { HeldKey, HoldOptions } from './session/held-key.ts';
export type { Hold } from './session/hold.ts';
export type { SessionOptions } from './session/open-session.ts';
export type { Session } from './session/session.ts';
export type { HoldState, SessionState } from './session/session-state.ts';
export type { SessionToken } from './session/session-token.ts';
export { bytes, type Codec, type JsonValue, json, type MessageType, message, text } from './space/codec.ts';
export type { EntryWatch } from './space/entry-watch.ts';
export type {
  Entry,
  EntryEmission,
  EntryEvent,
  EntryList,
  EntryListOptions,
  EntryPutOptions,
  EntryScan,
  EntryScanOptions,
  EntryWatchOptions,
  Space,
} from './space/space.ts';
export type { SchemaInput, SchemaOutput, StandardResult, StandardSchemaV1, ValueIssue } from './space/standard-schema.ts';
export type { View } from './view/view.ts';
export type { ViewAdded, ViewChange, ViewChanged, ViewRemoved, ViewResync } from './view/view-change.ts';
export type { IndexFunction, ViewOptions, ViewReadOptions } from './view/view-options.ts';
export type { StaleReason, ViewState } from './view/view-state.ts';
export type { ConsumeBody, ConsumeOptions } from './watch/consumer.ts';
export type { Delivery, EventsDelivery, ResyncDelivery } from './watch/delivery.ts';
export type { WatchCreated, WatchEvent, WatchProgress, WatchResync } from './watch/watch-event.ts';
export type { WatchEmission, WatchOptions } from './watch/watch-options.ts';
