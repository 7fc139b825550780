import type { KeyValue } from '../kv/key-value.ts';

/** A change of what a view holds. */
export type ViewChange = ViewAdded | ViewChanged | ViewRemoved;

/** The key was not there before. */
export interface ViewAdded {
  readonly type: 'added';
  readonly kv: KeyValue;
  readonly old: undefined;
  /** The revision of the change; if it was found by reading everything anew, the revision of that reading. */
  readonly revision: bigint;
}

/** The key was written. */
export interface ViewChanged {
  readonly type: 'changed';
  readonly kv: KeyValue;
  /** The key as it was before. */
  readonly old: KeyValue;
  readonly revision: bigint;
}

/** The key is gone. */
export interface ViewRemoved {
  readonly type: 'removed';
  readonly kv: undefined;
  /** The key as it was before. */
  readonly old: KeyValue;
  readonly revision: bigint;
}

/**
 * The history that the view missed was compacted away, and everything was read anew. The changes that this brought to light follow, deletions
 * among them; what happened to a key in between is not known.
 */
export interface ViewResync {
  readonly type: 'resync';
  /** The revision of the reading. */
  readonly revision: bigint;
}

/** What two changes of one key amount to; undefined: nothing. */
export function merged(first: ViewChange, then: ViewChange): ViewChange | undefined {
  const { old } = first;
  const { kv, revision } = then;
  if (kv !== undefined) return old === undefined ? { type: 'added', kv, old, revision } : { type: 'changed', kv, old, revision };
  return old === undefined ? undefined : { type: 'removed', kv, old, revision };
}
