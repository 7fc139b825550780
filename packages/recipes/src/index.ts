/** Coordination on etcd v3: locks and elections. */

export type { ContendOptions } from './contention/contend.ts';
export type { RecipeErrorCode } from './contention/kind.ts';
export { type LeadOptions, lead } from './election/lead.ts';
export { type CampaignOptions, campaign, type Leadership } from './election/leadership.ts';
export { type Leader, leader, observe } from './election/observe.ts';
export { type Lock, type LockOptions, lock, tryLock } from './lock/lock.ts';
