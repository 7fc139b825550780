import type { KeyValue as WireKeyValue } from '@conclave/protocol';
import type { Engine } from '../connection/engine.ts';
import { isConclaveError } from '../errors/conclave-error.ts';
import type { WireRange } from './key-range.ts';
import { readRange } from './read-range.ts';
import { concatBytes } from './text.ts';

/** Keys a page: enough to make the round trips not matter, few enough to keep messages small. */
const pageKeys = 1_000;

export interface PinnedListOptions {
  /** Leave the values out. Default: false. */
  readonly keysOnly?: boolean;
  /** Read as it was then. Default: now, that is at the revision of the first page, which is linearizable. */
  readonly revision?: number;
}

export interface PinnedList {
  readonly revision: number;
  /** The keys of each range, in its order. */
  readonly kvs: readonly (readonly WireKeyValue[])[];
}

/**
 * Reads ranges page by page, all as they were at one revision. Takes as long as it must: where that revision is now, and is compacted away between
 * two pages, from the beginning again.
 */
export async function pinnedList(
  engine: Engine,
  ranges: readonly WireRange[],
  signal: AbortSignal,
  options: PinnedListOptions = {},
): Promise<PinnedList> {
  for (;;) {
    try {
      return await listOnce(engine, ranges, signal, options);
    } catch (error) {
      if (options.revision !== undefined || !isConclaveError(error, 'compacted')) throw error;
    }
  }
}

async function listOnce(
  engine: Engine,
  ranges: readonly WireRange[],
  signal: AbortSignal,
  { keysOnly = false, revision: at = 0 }: PinnedListOptions,
): Promise<PinnedList> {
  const options = { deadlineMs: Number.POSITIVE_INFINITY, signal };
  let revision = at;
  const kvs: WireKeyValue[][] = [];
  for (const { key, rangeEnd } of ranges) {
    const found: WireKeyValue[] = [];
    let start: Uint8Array | undefined = key;
    while (start !== undefined) {
      const page = await readRange(engine, { key: start, rangeEnd, limit: pageKeys, revision, keysOnly }, options);
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
