import type { KeyValue as WireKeyValue } from '@conclave/protocol';
import { idOf } from './text.ts';

/** What leads from the keys that were known to those that are there. */
export interface ListDifference {
  /** The ids of the keys that are there no more. */
  readonly gone: readonly string[];
  /** The keys that are not known as they are, in the order of the list. */
  readonly written: readonly WireKeyValue[];
}

/** @param isKnown whether a key that is there is known as it is */
export function listDifference(
  known: Iterable<string>,
  kvs: readonly WireKeyValue[],
  isKnown: (kv: WireKeyValue) => boolean,
): ListDifference {
  const present = new Set(kvs.map(({ key }) => idOf(key)));
  return { gone: [...known].filter((id) => !present.has(id)), written: kvs.filter((kv) => !isKnown(kv)) };
}
