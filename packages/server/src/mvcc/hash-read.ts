import type { HashKVResponse } from '@conclave/protocol';
import type { Store } from '../storage/backend/store.ts';
import type { Compaction } from './compaction.ts';
import { crc32c } from './crc32c.ts';
import type { Revisions } from './revisions.ts';
import { logKey, readLogKey } from './row.ts';
import type { Slicer } from './slicer.ts';

/** One checksum of history under way. The compact revision is fixed when it begins and pinned until it ends. */
export class HashRead {
  readonly #store: Store;
  readonly #revisions: Revisions;
  readonly #compaction: Compaction;
  readonly #revision: number;
  readonly #compacted: number;
  readonly #epoch: number;
  #hash = 0;
  /** The next row of `log` to look at. */
  #cursor: Uint8Array = logKey(0, 0);

  constructor(store: Store, revisions: Revisions, compaction: Compaction, revision: number) {
    this.#store = store;
    this.#revisions = revisions;
    this.#compaction = compaction;
    this.#revision = revisions.resolve(revision);
    this.#compacted = revisions.compacted;
    this.#epoch = revisions.epoch;
  }

  async run(slicer: Slicer): Promise<Pick<HashKVResponse, 'hash' | 'compactRevision' | 'hashRevision'>> {
    const unpin = this.#revisions.pin(this.#compacted);
    try {
      while (!this.#step(slicer)) await slicer.nextSlice();
    } finally {
      unpin();
    }
    return { hash: this.#hash, compactRevision: this.#compacted, hashRevision: this.#revision };
  }

  #step(slicer: Slicer): boolean {
    this.#revisions.checkEpoch(this.#epoch);
    for (const { key, value } of this.#store.scan('log', this.#cursor, logKey(this.#revision + 1, 0))) {
      if (slicer.isSpent()) {
        this.#cursor = new Uint8Array(key);
        return false;
      }
      // Only what compaction may not have got to yet needs the question asked; later rows all survive.
      const survives =
        readLogKey(key).main >= this.#compacted || this.#compaction.isDone || this.#compaction.survives(key, value, this.#compacted);
      if (survives) this.#hash = crc32c(crc32c(this.#hash, key), value);
    }
    return true;
  }
}
