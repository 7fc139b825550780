import { type WatchCreateRequest, WatchRequest, WatchResponse } from '@conclave/protocol';
import type { ScriptedStream } from './scripted-transport.ts';

/** One changed key. */
export interface ScriptedChange {
  readonly revision: number;
  /** Default: a key of its own for each revision. */
  readonly key?: string;
  /** Default: `put`. */
  readonly type?: 'put' | 'delete';
  readonly value?: string;
  /** The value before. Default: none is told. */
  readonly prev?: string;
}

/** The server's side of a watch stream. Watches go by the order in which they were asked for, from 0 on. */
export class ScriptedWatches {
  readonly stream: ScriptedStream;

  constructor(stream: ScriptedStream) {
    this.stream = stream;
  }

  creates(): readonly WatchCreateRequest[] {
    return this.#requests().flatMap(({ createRequest }) => createRequest ?? []);
  }

  cancels(): readonly bigint[] {
    return this.#requests().flatMap(({ cancelRequest }) => cancelRequest?.watchId ?? []);
  }

  /** How often it was asked how far it is. */
  progressRequests(): number {
    return this.#requests().filter(({ progressRequest }) => progressRequest !== undefined).length;
  }

  /** Answers a creation. */
  created(n = 0, revision = 100): void {
    this.#send({ header: { revision }, watchId: this.#id(n), created: true });
  }

  /** Answers a creation as one that is turned down. */
  refuse(cancelReason: string): void {
    this.#send({ watchId: -1n, created: true, canceled: true, cancelReason });
  }

  events(changes: readonly ScriptedChange[], options: { n?: number; fragment?: boolean; revision?: number } = {}): void {
    this.#send({
      header: { revision: options.revision ?? changes.at(-1)?.revision ?? 0 },
      watchId: this.#id(options.n ?? 0),
      fragment: options.fragment ?? false,
      events: changes.map(({ key, revision, type, value, prev }) => {
        const kv = { key: bytes(key ?? `k${revision}`), modRevision: revision };
        const prevKv = prev === undefined ? undefined : { key: kv.key, value: bytes(prev), modRevision: revision - 1, version: 1 };
        return type === 'delete'
          ? { type: 1 as const, kv, prevKv }
          : { kv: { ...kv, value: bytes(value ?? 'v'), version: prev === undefined ? 1 : 2 }, prevKv };
      }),
    });
  }

  /** Says of one watch that all up to `revision` was told. */
  progress(revision: number, n = 0): void {
    this.#send({ header: { revision }, watchId: this.#id(n) });
  }

  /** Says the same of all watches of the stream, as one who asks for it is told. */
  streamProgress(revision: number): void {
    this.#send({ header: { revision }, watchId: -1n });
  }

  cancel(cancelReason: string, compactRevision = 0, n = 0): void {
    this.#send({ watchId: this.#id(n), canceled: true, cancelReason, compactRevision });
  }

  #requests(): readonly WatchRequest[] {
    return this.stream.written.map((written) => WatchRequest.decode(written));
  }

  #id(n: number): bigint {
    return this.creates()[n]?.watchId ?? -1n;
  }

  #send(response: Parameters<typeof WatchResponse.encode>[0]): void {
    this.stream.send(WatchResponse.encode(response));
  }
}

function bytes(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text));
}
