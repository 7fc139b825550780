export { type ClusterOptions, type ConclaveCluster, startCluster } from './cluster.ts';
export { type ConclaveServer, MemberRemovedError, type ServerOptions, startServer } from './embed.ts';
export { defaultSettings, type MemberSettings } from './limits.ts';
export type { StoragePorts } from './member-storage.ts';
export type { PeerAddress, PeerEvent, PeerFrame, PeerPacket, Peers } from './replica/ports.ts';
export {
  type Backend,
  type BackendView,
  type Change,
  type Changes,
  type Row,
  type ScanOptions,
  type Table,
  tables,
} from './storage/backend/backend.ts';
export type { StoreBounds } from './storage/backend/buffered-store.ts';
export { MemoryBackend } from './storage/backend/memory.ts';
export { StateCorruptionError } from './storage/backend/state-corruption-error.ts';
export type { Disk, DiskCallback, DiskFile } from './storage/disk.ts';
export { CorruptionError, StorageError, type StorageErrorCode } from './storage/storage-error.ts';
export { inProcessPeers } from './transport/in-process.ts';
export type { ClusterDescription, MemberDescription, PeerIdentity, PeerNetwork } from './transport/network.ts';
export { decodePacket, encodePacket } from './transport/peer-codec.ts';
export { conclaveVersion } from './version.ts';
