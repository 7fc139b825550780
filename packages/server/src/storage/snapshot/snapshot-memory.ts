import type { SnapshotMeta } from '@conclave/raft';
import { SnapshotCorruptionError } from '../storage-error.ts';
import type { SnapshotPlace, SnapshotPoint, StoredChunk, StoredSnapshotWriter } from './snapshot-place.ts';
import { SnapshotVerifier } from './snapshot-verifier.ts';

/** Received snapshots of a member that lives in memory only. */
export class SnapshotMemory implements SnapshotPlace {
  readonly #clusterId: bigint;
  readonly #finished = new Map<string, { readonly index: number; readonly chunks: readonly Uint8Array[] }>();

  constructor(clusterId: bigint) {
    this.#clusterId = clusterId;
  }

  async receive(snapshot: SnapshotMeta, _id: number): Promise<StoredSnapshotWriter> {
    const verifier = new SnapshotVerifier({ ...snapshot, clusterId: this.#clusterId });
    const place = this.describe(snapshot);
    const chunks: Uint8Array[] = [];
    const verify = (check: () => void): void => {
      try {
        check();
      } catch (cause) {
        throw new SnapshotCorruptionError(place, 0, snapshot.index, cause instanceof Error ? cause.message : String(cause));
      }
    };
    return {
      get next() {
        return verifier.next;
      },
      async write(chunk) {
        verify(() => verifier.add(chunk));
        // The packet it came in may be larger, and may be used again.
        chunks.push(new Uint8Array(chunk));
      },
      finish: async () => {
        verify(() => {
          if (!verifier.isComplete) throw new Error('its end is missing');
        });
        this.#finished.set(place, { index: snapshot.index, chunks });
      },
      async abandon() {
        chunks.length = 0;
      },
      async close() {},
    };
  }

  async *chunks(point: SnapshotPoint): AsyncGenerator<StoredChunk, undefined> {
    const finished = this.#finished.get(this.describe(point));
    if (finished === undefined) throw new SnapshotCorruptionError(this.describe(point), 0, point.index, 'there is none');
    for (const [offset, bytes] of finished.chunks.entries()) yield { offset, bytes };
  }

  describe({ index, term }: SnapshotPoint): string {
    return `memory ${index}-${term}`;
  }

  async removeUpTo(index: number): Promise<void> {
    for (const [name, finished] of this.#finished) if (finished.index <= index) this.#finished.delete(name);
  }
}
