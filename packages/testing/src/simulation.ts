/** The parts of which simulations are made: machines, disks and networks, for worlds that {@link cluster} does not build. */

export type { CrashPolicy, SectorFate } from './crash-policy.ts';
export { Machine, type MachineObserver, type MachineOptions } from './machine.ts';
export { SimulatedBackend, type SimulatedBackendOptions } from './simulated-backend.ts';
export { SimulatedCalls, type SimulatedCallsOptions } from './simulated-calls.ts';
export { type DiskOperation, SimulatedDisk, type SimulatedDiskOptions } from './simulated-disk.ts';
export { type LinkState, SimulatedPeers, type SimulatedPeersOptions } from './simulated-peers.ts';
