import { type Client, isConclaveError, prefix, type WatchEvent } from '@conclave/sdk';
import { eventually, type HistoryRecorder, type KeyValue, type OpenWatch } from '@conclave/testkit';

interface Recording {
  readonly recorder: HistoryRecorder;
  readonly client: number;
  readonly now: () => number;
}

/** A watch of all keys by the SDK, which survives what befalls its streams: written down as what the SDK's user is told, without a gap and nothing twice. */
export class WatchedStore {
  readonly #client: Client;
  readonly #recording: Recording;
  #told = 0n;
  #watch: OpenWatch | undefined;
  #unsubscribe: (() => void) | undefined;
  #isStopped = false;

  constructor(client: Client, recording: Recording) {
    this.#client = client;
    this.#recording = recording;
    void this.#begin();
  }

  /** Waits until it was told of this revision or a later one. */
  async toldUpTo(revision: bigint): Promise<void> {
    await eventually(`a watch is told of revision ${revision}`, () => this.#told >= revision, 20_000);
  }

  stop(): void {
    this.#isStopped = true;
    this.#unsubscribe?.();
    this.#close();
  }

  /** From a known revision on, so that what is owed is known. */
  async #begin(): Promise<void> {
    const { recorder, client, now } = this.#recording;
    while (!this.#isStopped) {
      try {
        const { revision } = await this.#client.list(prefix(''), { countOnly: true });
        if (this.#isStopped) return;
        const startRevision = revision + 1n;
        const request = { key: '\0', end: '\0', startRevision: Number(startRevision), prevKv: true };
        const watch = recorder.watch(client, now(), request, { granularity: 'event' });
        this.#watch = watch;
        const subscription = this.#client.watch(prefix(''), { startRevision, prevKv: true }).subscribe({
          next: (event) => this.#onEvent(watch, event),
          error: () => {
            // Too far behind a compaction, or the client was closed.
            this.#close();
            void this.#begin();
          },
        });
        this.#unsubscribe = () => subscription.unsubscribe();
        return;
      } catch (error) {
        if (!isConclaveError(error)) throw error;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }
  }

  #onEvent(watch: OpenWatch, event: WatchEvent): void {
    this.#told = event.revision;
    const told = { type: event.type, kv: shown(event.kv), ...(event.prevKv !== undefined && { prevKv: shown(event.prevKv) }) };
    watch.message({ type: 'events', time: this.#recording.now(), revision: Number(event.revision), events: [told] });
  }

  #close(): void {
    this.#watch?.message({ type: 'closed', time: this.#recording.now() });
    this.#watch = undefined;
  }
}

function shown(kv: WatchEvent['kv']): KeyValue {
  const { key, value, createRevision, modRevision, version, lease } = kv;
  return {
    key,
    value,
    createRevision: Number(createRevision),
    modRevision: Number(modRevision),
    version: Number(version),
    ...(lease !== 0n && { lease: `${lease}` }),
  };
}
