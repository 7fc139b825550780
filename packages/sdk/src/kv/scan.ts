import {
  type Init,
  type RangeRequest,
  type RangeResponse,
  RangeRequest_SortOrder as SortOrder,
  RangeRequest_SortTarget as SortTarget,
} from '@conclave/protocol';
import type { Engine } from '../connection/engine.ts';
import type { RequestOptions } from '../connection/procedure.ts';
import { invalidArgument, isConclaveError } from '../errors/conclave-error.ts';
import type { KeyPrefix, Target, WireRange } from './key-range.ts';
import { KeyValue } from './key-value.ts';
import type { RangeStreams } from './range-stream.ts';
import { readRange } from './read-range.ts';
import { concatBytes, type Integer, toCounter } from './text.ts';

/** `deadlineMs` is for each page: a scan as a whole takes as long as its reader. */
export interface ScanOptions extends RequestOptions {
  /** How many keys to ask for at a time, 1 or more. Default: 1000. Fewer where values are large: a page is held in memory as a whole. */
  readonly pageSize?: number | undefined;
  /** Read as of this revision. Default: that of the first page. Fails with `compacted` or `future-revision` outside of what is stored. */
  readonly revision?: Integer | undefined;
  /**
   * Let the members that are asked answer alone: the first page may be stale, and the others are of the same revision. A member that is
   * behind that revision is asked to catch up first. Default: false.
   */
  readonly serializable?: boolean | undefined;
  /** Leave the values out. Default: false. */
  readonly keysOnly?: boolean | undefined;
  /** By key. Default: `ascend`. A descending page costs etcd a sort of all that is left, so prefer the other for long ranges. */
  readonly order?: 'ascend' | 'descend' | undefined;
}

const pageSizeDefault = 1_000;
const afterKey: Uint8Array = new Uint8Array([0]);

/** What a scan reads with, of the client it belongs to. */
export interface ScanSource {
  readonly engine: Engine;
  readonly rangeStreams: RangeStreams;
}

/**
 * A range of any size, key by key, as it was at one revision. Iterated once, with `for await`; nothing is read before, and no more than the
 * loop asks for.
 *
 * @example
 * ```ts
 * const keys: string[] = [];
 * for await (const { key } of client.scan(prefix('config/'), { keysOnly: true, pageSize: 100 })) keys.push(key);
 * ```
 */
export class Scan implements AsyncIterable<KeyValue> {
  readonly #source: ScanSource;
  readonly #prefix: KeyPrefix;
  readonly #range: WireRange;
  readonly #pageSize: number;
  readonly #options: ScanOptions;
  #revision: number;
  #isBegun = false;

  /** @internal */
  constructor(source: ScanSource, prefix: KeyPrefix, target: Target, options: ScanOptions = {}) {
    const { pageSize = pageSizeDefault, revision, order } = options;
    this.#source = source;
    this.#prefix = prefix;
    this.#range = prefix.range(target);
    this.#pageSize = toCounter(pageSize, 'pageSize');
    if (this.#pageSize === 0) throw invalidArgument('pageSize must be 1 or more');
    if (order !== undefined && order !== 'ascend' && order !== 'descend') throw invalidArgument(`a scan cannot be in order ${order}`);
    this.#options = options;
    this.#revision = revision === undefined ? 0 : toCounter(revision, 'revision');
  }

  /**
   * The revision all of it is read at, known from the first key on, or from the end of a scan that found none. To follow what comes after,
   * watch from `revision + 1n`.
   */
  get revision(): bigint | undefined {
    return this.#revision === 0 ? undefined : BigInt(this.#revision);
  }

  [Symbol.asyncIterator](): AsyncGenerator<KeyValue, undefined> {
    if (this.#isBegun) throw invalidArgument('a scan is read once: begin another');
    this.#isBegun = true;
    return this.#keyValues();
  }

  async *#keyValues(): AsyncGenerator<KeyValue, undefined> {
    let rest: WireRange | undefined = this.#range;
    while (rest !== undefined) {
      // Each stretch begins with a plain read. It pins the revision, knows how to find a server, and is told what stands against going on:
      // so a stream that breaks needs nothing but another stretch.
      const page = await this.#page(rest);
      for (const kv of page.kvs) yield new KeyValue(kv, this.#prefix);
      rest = page.more ? this.#after(rest, page) : undefined;
      const stream = rest === undefined || this.#isPaged ? undefined : this.#openStream(rest);
      if (stream === undefined) continue;
      try {
        for (let chunk = await stream.next(); chunk !== undefined && rest !== undefined; chunk = await stream.next()) {
          rest = this.#after(rest, chunk);
          for (const kv of chunk.kvs) yield new KeyValue(kv, this.#prefix);
        }
        if (stream.isWhole) rest = undefined;
      } finally {
        stream.close();
      }
    }
    return undefined;
  }

  /** Streams come in one order, and a member without a leader does not give any. */
  get #isPaged(): boolean {
    return this.#options.order === 'descend' || this.#options.serializable === true;
  }

  async #page(rest: WireRange): Promise<RangeResponse> {
    const { engine } = this.#source;
    const { serializable, order } = this.#options;
    const isPinned = this.#revision !== 0;
    const request: Init<RangeRequest> = {
      ...this.#request(rest),
      limit: this.#pageSize,
      serializable,
      sortTarget: SortTarget.KEY,
      sortOrder: order === 'descend' ? SortOrder.DESCEND : SortOrder.NONE,
    };
    try {
      const page = await readRange(engine, request, this.#options);
      if (!isPinned) this.#revision = page.header?.revision ?? 0;
      return page;
    } catch (error) {
      // Another member than the one before, and behind it. What it has not seen yet it can ask the leader for.
      if (serializable !== true || !isPinned || !isConclaveError(error, 'future-revision')) throw error;
      return await readRange(engine, { ...request, serializable: false }, this.#options);
    }
  }

  #openStream(rest: WireRange): ReturnType<RangeStreams['open']> {
    return this.#source.rangeStreams.open(this.#request(rest), this.#options);
  }

  #request(rest: WireRange): Init<RangeRequest> {
    return { key: rest.key, rangeEnd: rest.rangeEnd, revision: this.#revision, keysOnly: this.#options.keysOnly };
  }

  /** What is left of a range when these keys of it are read. */
  #after(rest: WireRange, { kvs }: RangeResponse): WireRange {
    const last = kvs.at(-1)?.key;
    if (last === undefined) return rest;
    if (this.#options.order === 'descend') return { key: rest.key, rangeEnd: last };
    return { key: concatBytes(last, afterKey), rangeEnd: rest.rangeEnd };
  }
}
