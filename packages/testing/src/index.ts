/** Tests of what is built on Conclave: a whole cluster in virtual time, its troubles on demand, and marble diagrams of what it told. */

export { cluster } from './cluster/cluster.ts';
export type { ClusterOptions } from './cluster/cluster-options.ts';
export type { RunOptions } from './cluster/driver.ts';
export type { PartitionOptions, Party } from './cluster/partitions.ts';
export type { ClientOptions, TestCluster } from './cluster/test-cluster.ts';
export type { MarbleOptions } from './marbles/diagram.ts';
export type { Emission } from './marbles/emission.ts';
export type { Actions, ExpectOptions } from './marbles/expectation.ts';
export type { Recording } from './marbles/recording.ts';
export { Random } from './random.ts';
export { type VirtualRunOptions, VirtualRuntime, type VirtualRuntimeOptions } from './virtual-runtime.ts';
