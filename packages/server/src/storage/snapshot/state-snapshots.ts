import type { SnapshotMeta } from '@conclave/raft';
import type { Runtime } from '@conclave/wire';
import type { SnapshotReader, Snapshots, SnapshotWriter } from '../../replica/ports.ts';
import type { Backend, BackendView } from '../backend/backend.ts';
import { type BufferedStore, durableIndexOf } from '../backend/buffered-store.ts';
import { restoreState, type Summarize } from './restore.ts';
import type { SnapshotPlace, SnapshotPoint } from './snapshot-place.ts';
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

interface Reception extends SnapshotPoint {
  readonly id: number;
  readonly writer: SnapshotWriter;
}

/** Snapshots of a member's applied state: its own, for others to have, and those of others that take its place. DESIGN.md tells their life. */
export class StateSnapshots implements Snapshots {
  readonly #options: StateSnapshotsOptions;
  #reception: Reception | undefined;
  /** The receptions asked for so far, each after the one before: they share a folder. */
  #receiving: Promise<unknown> = Promise.resolve();

  constructor(options: StateSnapshotsOptions) {
    this.#options = options;
  }

  /** What is applied by now is in it: it is made durable first. */
  async open(): Promise<SnapshotReader> {
    const { store, backend, runtime, clusterId } = this.#options;
    await store.flush();
    if (!store.isReadable) throw new Error('the state is being replaced');
    const view = backend.view();
    try {
      const header = { ...this.#summaryOf(view), clusterId };
      return new StateReader({ view, header, runtime, id: Math.floor(runtime.random() * 2 ** 32) });
    } catch (error) {
      view.close();
      throw error;
    }
  }

  receive(snapshot: SnapshotMeta, id: number): Promise<SnapshotWriter> {
    const received = this.#receiving.then(() => this.#receive(snapshot, id));
    this.#receiving = received.catch(() => {
      // Told to whoever asked.
    });
    return received;
  }

  async restore({ index, term }: SnapshotPoint): Promise<void> {
    const { store, place } = this.#options;
    await store.replace(index, (commit) => restoreState({ ...this.#options, point: { index, term }, commit }));
    await place.removeUpTo(index);
  }

  async #receive(snapshot: SnapshotMeta, id: number): Promise<SnapshotWriter> {
    const { index, term } = snapshot;
    const before = this.#reception;
    if (before?.id === id && before.index === index && before.term === term) return before.writer;
    await before?.writer.abandon();
    this.#reception = undefined;
    const writer = await this.#options.place.receive(snapshot, id);
    const ended = (): void => {
      if (this.#reception?.writer === writer) this.#reception = undefined;
    };
    this.#reception = { index, term, id, writer: untilEnded(writer, ended) };
    return this.#reception.writer;
  }

  #summaryOf(view: BackendView): SnapshotMeta & ReturnType<Summarize> {
    const index = durableIndexOf(view);
    if (index === 0) throw new Error('nothing is applied yet that a snapshot could hold');
    return { index, ...this.#options.summarize(view) };
  }
}

/** The same writer, with a word when it has ended. */
function untilEnded(writer: SnapshotWriter, ended: () => void): SnapshotWriter {
  return {
    get next() {
      return writer.next;
    },
    write: (chunk) => writer.write(chunk),
    async finish() {
      await writer.finish();
      ended();
    },
    async abandon() {
      ended();
      await writer.abandon();
    },
  };
}
