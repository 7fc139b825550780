import type { KeyValue as WireKeyValue } from '@conclave/protocol';
import type { Engine } from '../connection/engine.ts';
import type { WireRange } from './key-range.ts';
import { readRange } from './read-range.ts';
import { concatBytes } from './text.ts';

/** Keys a page: enough to make the round trips not matter, few enough to keep messages small. */
const pageKeys = 1_000;

export interface PinnedList {
  readonly revision: number;
  /** The keys of each range, in its order. */
  readonly kvs: readonly (readonly WireKeyValue[])[];
}

/** Reads ranges page by page, all as they were at the revision of the first page, which is linearizable. Takes as long as it must. */
export async function pinnedList(engine: Engine, ranges: readonly WireRange[], signal: AbortSignal): Promise<PinnedList> {
  const options = { deadlineMs: Number.POSITIVE_INFINITY, signal };
  let revision = 0;
  const kvs: WireKeyValue[][] = [];
  for (const { key, rangeEnd } of ranges) {
    const found: WireKeyValue[] = [];
    let start: Uint8Array | undefined = key;
    while (start !== undefined) {
      const page = await readRange(engine, { key: start, rangeEnd, limit: pageKeys, revision }, options);
      if (revision === 0) revision = page.header?.revision ?? 0;
      for (const kv of page.kvs) found.push(kv);
      const last = found.at(-1);
      start = page.more && last !== undefined ? concatBytes(last.key, zero) : undefined;
    }
    kvs.push(found);
  }
  return { revision, kvs };
}

const zero: Uint8Array = new Uint8Array([0]);
