export type { CrashPolicy, SectorFate } from './crash-policy.ts';
export { Machine, type MachineObserver, type MachineOptions } from './machine.ts';
export { Random } from './random.ts';
export { SimulatedBackend, type SimulatedBackendOptions } from './simulated-backend.ts';
export { SimulatedCalls, type SimulatedCallsOptions } from './simulated-calls.ts';
export { type DiskOperation, SimulatedDisk, type SimulatedDiskOptions } from './simulated-disk.ts';
export { type LinkState, SimulatedPeers, type SimulatedPeersOptions } from './simulated-peers.ts';
export { type RunOptions, VirtualRuntime, type VirtualRuntimeOptions } from './virtual-runtime.ts';
