export { Random } from './random.ts';
export { type RunOptions, VirtualRuntime, type VirtualRuntimeOptions } from './virtual-runtime.ts';
