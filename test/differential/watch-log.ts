import type { Event, WatchCreateRequest, WatchResponse } from '@conclave/protocol';
import { type Init, Watch, type WatchRequest } from '@conclave/protocol';
import { type RawClient, type RawStream, within } from '@conclave/testkit';
import { shown } from './shown.ts';

const lastsMs = 1_200_000;

/**
 * One Watch stream of one server, and all that came on it, told per watcher: how events are cut into responses, and how watchers alternate, is
 * each server's own affair.
 */
export class WatchLog implements Disposable {
  readonly #server: string;
  readonly #stream: RawStream<WatchRequest, WatchResponse>;
  readonly #perWatcher = new Map<bigint, string[]>();
  /** By watcher, the highest revision that a progress answer said was delivered. */
  readonly #promised = new Map<bigint, number>();
  readonly #createdAt = new Map<bigint, number>();
  readonly #compacted = new Set<bigint>();
  readonly #broken: string[] = [];
  #created = 0;
  #progress = 0;
  #last: WatchResponse | undefined;
  #end = '';
  #wake: () => void = () => {};

  constructor(server: string, client: RawClient) {
    this.#server = server;
    this.#stream = client.stream(Watch.methods.watch, { timeoutMs: lastsMs });
    void this.#read();
  }

  /** Asks for a watcher and waits for the answer to that, which is given. */
  async create(request: Init<WatchCreateRequest>): Promise<WatchResponse | undefined> {
    const expected = this.#created + 1;
    this.#stream.send({ createRequest: request });
    await this.#until('a watch is created or refused', () => this.#created >= expected);
    return this.#last;
  }

  /** Asks for the end of a watcher and returns when the answer, if there is one, has come: answers to requests keep their order. */
  async cancel(watchId: bigint): Promise<void> {
    this.#stream.send({ cancelRequest: { watchId } });
    await this.create({ key: new Uint8Array([98]), rangeEnd: new Uint8Array([97]) });
  }

  /** Returns when the server has ended a watcher that began before what is compacted. */
  async compacted(watchId: bigint): Promise<void> {
    await this.#until(`watcher ${watchId} is canceled`, () => this.#compacted.has(watchId));
    this.#compacted.delete(watchId);
  }

  askProgress(): void {
    this.#stream.send({ progressRequest: {} });
  }

  /**
   * Returns when every watcher has been sent all up to `revision`, which is the server's present one. Needs a watcher, none
   * ahead of it, and a revision younger than every watcher: else an older answer may be taken for the one to this question.
   */
  async settle(revision: number): Promise<void> {
    // A server that is not done yet leaves the question unanswered.
    const asking = setInterval(() => this.askProgress(), 20);
    this.askProgress();
    try {
      await this.#until(`progress reaches revision ${revision}`, () => this.#progress >= revision);
    } finally {
      clearInterval(asking);
    }
  }

  /** Everything that came so far, watcher by watcher. */
  told(): readonly string[] {
    const ids = [...this.#perWatcher.keys()].sort((a, b) => Number(a - b));
    const lines = ids.flatMap((id) => (this.#perWatcher.get(id) ?? []).map((line) => `${id}: ${line}`));
    return [...lines, ...this.#broken, ...(this.#end === '' ? [] : [this.#end])];
  }

  [Symbol.dispose](): void {
    this.#stream.cancel();
  }

  async #read(): Promise<void> {
    try {
      for (;;) {
        this.#take(await this.#stream.next(lastsMs));
        this.#wake();
      }
    } catch (error) {
      this.#end = String(error);
      this.#wake();
    }
  }

  #take(response: WatchResponse): void {
    const { header, created, canceled, events, watchId } = response;
    if (created) {
      this.#created += 1;
      this.#last = response;
      this.#promised.delete(watchId);
      this.#createdAt.set(watchId, header?.revision ?? 0);
    }
    if (canceled && response.compactRevision > 0) this.#compacted.add(watchId);
    if (created || canceled) this.#tell(watchId, shown({ ...response, events: response.events.length }));
    else if (events.length === 0) this.#takeProgress(header?.revision ?? 0);
    for (const event of events) this.#takeEvent(watchId, event);
    const newest = events.at(-1)?.kv?.modRevision ?? 0;
    if (newest > (header?.revision ?? 0))
      this.#broken.push(`watcher ${watchId}: an event of ${newest} under a header of ${header?.revision}`);
  }

  #takeProgress(revision: number): void {
    this.#progress = Math.max(this.#progress, revision);
    // An answer from before a watcher was created may come after it was, and promises it nothing.
    for (const [id, createdAt] of this.#createdAt) if (createdAt < revision) this.#promised.set(id, revision);
  }

  #takeEvent(id: bigint, event: Event): void {
    const promised = this.#promised.get(id) ?? 0;
    const revision = event.kv?.modRevision ?? 0;
    if (revision <= promised) this.#broken.push(`watcher ${id}: an event of ${revision} after progress ${promised}`);
    this.#tell(id, shown(event));
  }

  #tell(id: bigint, line: string): void {
    const lines = this.#perWatcher.get(id);
    if (lines === undefined) this.#perWatcher.set(id, [line]);
    else lines.push(line);
  }

  async #until(what: string, isSo: () => boolean): Promise<void> {
    while (!isSo()) {
      if (this.#end !== '') throw new Error(`${this.#server}: ${what}: ${this.#end}`);
      const woken = new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      await within(`${this.#server}: ${what}`, woken);
    }
  }
}
