export type { CrashPolicy, SectorFate } from './crash-policy.ts';
export { Random } from './random.ts';
export { type DiskOperation, SimulatedDisk, type SimulatedDiskOptions } from './simulated-disk.ts';
export { type RunOptions, VirtualRuntime, type VirtualRuntimeOptions } from './virtual-runtime.ts';
