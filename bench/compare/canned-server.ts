import { once } from 'node:events';
import { createServer, type Http2Server, type ServerHttp2Stream } from 'node:http2';
import { Event_EventType, type Init, type KeyValue, RangeResponse, WatchRequest, WatchResponse } from '@conclave/protocol';

const header = { clusterId: 1n, memberId: 1n, revision: 1_000_000, raftTerm: 2 };

/** Says the same to everybody, encoded before and as fast as it is taken: what a client makes of it is then the client's own speed. */
export class CannedServer implements AsyncDisposable {
  readonly #server: Http2Server;
  readonly #range: Buffer;
  readonly #watch: readonly Uint8Array[];

  private constructor(keys: number, keyBytes: number, events: number, eventBytes: number) {
    this.#range = framed(rangeOf(keys, keyBytes));
    const responses = [WatchResponse.encode({ header, created: true })];
    // As etcd has them when a watch catches up: up to a thousand revisions at a time.
    for (let first = 0; first < events; first += 1_000) {
      const batch = Array.from({ length: Math.min(1_000, events - first) }, (_, at) => ({
        type: Event_EventType.PUT,
        kv: kv(first + at, eventBytes),
      }));
      responses.push(WatchResponse.encode({ header, events: batch }));
    }
    this.#watch = responses;
    this.#server = createServer();
    this.#server.on('stream', (stream, { ':path': path }) => this.#answer(stream, `${path}`));
  }

  static async start(keys: number, keyBytes: number, events: number, eventBytes: number): Promise<CannedServer> {
    const canned = new CannedServer(keys, keyBytes, events, eventBytes);
    canned.#server.listen(0, '127.0.0.1');
    await once(canned.#server, 'listening');
    return canned;
  }

  get address(): string {
    const address = this.#server.address();
    return `127.0.0.1:${typeof address === 'object' ? address?.port : ''}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
  }

  #answer(stream: ServerHttp2Stream, path: string): void {
    // A client that goes away in the midst is nothing to a server like this one.
    stream.on('error', () => undefined);
    if (path.endsWith('/Watch')) {
      stream.respond({ ':status': 200, 'content-type': 'application/grpc' });
      stream.once('data', (request: Buffer) => void this.#play(stream, request));
      stream.once('end', () => stream.end());
      return;
    }
    stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
    stream.once('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
    stream.resume();
    stream.end(this.#range);
  }

  async #play(stream: ServerHttp2Stream, request: Buffer): Promise<void> {
    const watchId = WatchRequest.decode(request.subarray(prefixBytes)).createRequest?.watchId ?? 0n;
    // A field more at the end of a message counts as one in its place.
    const itsId = WatchResponse.encode({ watchId: BigInt(watchId) });
    for (const response of this.#watch) {
      if (stream.destroyed) return;
      if (!stream.write(framed(Buffer.concat([response, itsId])))) await once(stream, 'drain').catch(() => undefined);
    }
  }
}

const prefixBytes = 5;

/** The answer to a range of so many keys with values of so many bytes. */
export function rangeOf(keys: number, valueBytes: number): Uint8Array {
  return RangeResponse.encode({ header, kvs: Array.from({ length: keys }, (_, n) => kv(n, valueBytes)), count: keys });
}

function kv(n: number, valueBytes: number): Init<KeyValue> {
  return { key: Buffer.from(`canned/${n}`), value: Buffer.alloc(valueBytes, 'x'), createRevision: n + 1, modRevision: n + 1, version: 1 };
}

function framed(message: Uint8Array): Buffer {
  const prefix = Buffer.alloc(prefixBytes);
  prefix.writeUInt32BE(message.length, 1);
  return Buffer.concat([prefix, message]);
}
