import type { SnapshotMeta } from '@conclave/raft';
import type { Runtime } from '@conclave/wire';
import type { SnapshotReader, Snapshots, SnapshotWriter } from '../../replica/ports.ts';
import type { Backend, BackendView } from '../backend/backend.ts';
import { type BufferedStore, durableIndexOf } from '../backend/buffered-store.ts';
import { restoreState, type Summarize } from './restore.ts';
import type { SnapshotPlace, SnapshotPoint, StoredSnapshotWriter } from './snapshot-place.ts';
import { StateReader } from './state-reader.ts';

export interface StateSnapshotsOptions {
  readonly runtime: Runtime;
  readonly clusterId: bigint;
  readonly store: BufferedStore;
  /** The one beneath the store. */
  readonly backend: Backend;
  /** Where received ones are kept. */
  readonly place: SnapshotPlace;
  readonly summarize: Summarize;
  /** Rows of a snapshot are committed when there are this many bytes of them. */
  readonly batchBytes: number;
}

/** Snapshots of a member's applied state: its own, for others to have, and those of others that take its place. DESIGN.md tells their life. */
export class StateSnapshots implements Snapshots {
  readonly #options: StateSnapshotsOptions;
  #reception: Reception | undefined;
  /** What is done to received snapshots is done one after the other: they share a folder, and a new one must not meet what is left of another. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(options: StateSnapshotsOptions) {
    this.#options = options;
  }

  /** What is applied by now is in it: it is made durable first. */
  async open(): Promise<SnapshotReader> {
    const { store, runtime, clusterId } = this.#options;
    await store.flush();
    const view = store.committed();
    try {
      const header = { ...this.#summaryOf(view), clusterId };
      return new StateReader({ view, header, runtime, id: Math.floor(runtime.random() * 2 ** 32) });
    } catch (error) {
      view.close();
      throw error;
    }
  }

  receive(snapshot: SnapshotMeta, id: number): Promise<SnapshotWriter> {
    return this.#inTurn(() => this.#receive(snapshot, id));
  }

  async restore({ index, term }: SnapshotPoint): Promise<void> {
    const { store, place } = this.#options;
    await store.replace(index, (commit) => restoreState({ ...this.#options, point: { index, term }, commit }));
    await this.#inTurn(() => place.removeUpTo(index));
  }

  /** Lets go of what is coming in; it may be continued after the next start. */
  close(): Promise<void> {
    return this.#inTurn(async () => {
      await this.#reception?.writer.close();
      this.#reception = undefined;
    });
  }

  async #receive(snapshot: SnapshotMeta, id: number): Promise<SnapshotWriter> {
    const before = this.#reception;
    if (before?.isOf(snapshot, id)) return before;
    this.#reception = undefined;
    await before?.writer.abandon();
    const { place, store } = this.#options;
    // One that was complete and came too late is never restored.
    await place.removeUpTo(store.durableIndex);
    const writer = await place.receive(snapshot, id);
    const reception = new Reception(snapshot, id, writer, (work) =>
      this.#inTurn(async () => {
        if (this.#reception === reception) this.#reception = undefined;
        await work();
      }),
    );
    this.#reception = reception;
    return reception;
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#last.then(work);
    this.#last = done.catch(() => {
      // Told to whoever asked for it.
    });
    return done;
  }

  #summaryOf(view: BackendView): SnapshotMeta & ReturnType<Summarize> {
    const index = durableIndexOf(view);
    if (index === 0) throw new Error('nothing is applied yet that a snapshot could hold');
    return { index, ...this.#options.summarize(view) };
  }
}

/** One snapshot that comes in. Its end waits for its turn. */
class Reception implements SnapshotWriter {
  readonly writer: StoredSnapshotWriter;
  readonly #snapshot: SnapshotMeta;
  readonly #id: number;
  readonly #end: (work: () => Promise<void>) => Promise<void>;

  constructor(snapshot: SnapshotMeta, id: number, writer: StoredSnapshotWriter, end: (work: () => Promise<void>) => Promise<void>) {
    this.writer = writer;
    this.#snapshot = snapshot;
    this.#id = id;
    this.#end = end;
  }

  isOf({ index, term }: SnapshotMeta, id: number): boolean {
    return this.#id === id && this.#snapshot.index === index && this.#snapshot.term === term;
  }

  get next(): number {
    return this.writer.next;
  }

  write(chunk: Uint8Array): Promise<void> {
    return this.writer.write(chunk);
  }

  finish(): Promise<void> {
    return this.#end(() => this.writer.finish());
  }

  abandon(): Promise<void> {
    return this.#end(() => this.writer.abandon());
  }
}
