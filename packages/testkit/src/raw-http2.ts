import { type ClientHttp2Stream, connect, constants, type IncomingHttpHeaders } from 'node:http2';

export interface RawGrpcRequest {
  readonly path: string;
  /** Besides method, path, content-type and te, which they may replace. */
  readonly headers?: Readonly<Record<string, string>>;
  /** What goes on the wire after the headers, frames or not. */
  readonly body: Uint8Array;
  /** Whether the request ends after the body. Default true. */
  readonly end?: boolean;
}

export interface RawGrpcResponse {
  /** The HTTP status, 0 when no headers came. */
  readonly status: number;
  /** `grpc-status` as sent, wherever it was sent; -1 when it was not. */
  readonly grpcStatus: number;
  readonly grpcMessage: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: Uint8Array;
  /** The HTTP/2 error code of a reset stream, 0 without one. */
  readonly resetCode: number;
}

/** One length-prefixed message of gRPC. `flag` 1 says that it is compressed. */
export function grpcFrame(message: Uint8Array, flag = 0): Uint8Array {
  const frame = new Uint8Array(5 + message.length);
  frame[0] = flag;
  new DataView(frame.buffer).setUint32(1, message.length);
  frame.set(message, 5);
  return frame;
}

/** Sends one gRPC call by hand over a connection of its own: what no gRPC library would send. Rejects when the connection breaks. */
export function rawGrpcCall(address: string, request: RawGrpcRequest): Promise<RawGrpcResponse> {
  return new Promise((resolve, reject) => {
    const session = connect(`http://${address}`);
    session.on('error', reject);
    session.setTimeout(15_000, () => session.destroy(new Error('no answer within 15 s')));
    const stream = session.request({
      [constants.HTTP2_HEADER_METHOD]: 'POST',
      [constants.HTTP2_HEADER_PATH]: request.path,
      'content-type': 'application/grpc',
      te: 'trailers',
      ...request.headers,
    });
    collect(stream, (response) => {
      session.close();
      resolve(response);
    });
    if (request.end === false) stream.write(request.body);
    else stream.end(request.body);
  });
}

function collect(stream: ClientHttp2Stream, done: (response: RawGrpcResponse) => void): void {
  let headers: IncomingHttpHeaders = {};
  let trailers: IncomingHttpHeaders = {};
  const chunks: Buffer[] = [];
  stream.on('response', (received) => {
    headers = received;
  });
  stream.on('trailers', (received) => {
    trailers = received;
  });
  let isAnswered = false;
  // A request that was left open would keep the stream open for good.
  stream.on('end', () => {
    isAnswered = trailers['grpc-status'] !== undefined || headers['grpc-status'] !== undefined;
    stream.close();
  });
  stream.on('data', (chunk: Buffer) => chunks.push(chunk));
  // A reset is an error to Node as well; the code that `close` tells is what matters.
  stream.on('error', () => undefined);
  stream.on('close', () => {
    const told = { ...headers, ...trailers };
    done({
      status: Number(headers[':status'] ?? 0),
      grpcStatus: Number(told['grpc-status'] ?? -1),
      grpcMessage: decodeURIComponent(String(told['grpc-message'] ?? '')),
      headers,
      body: Buffer.concat(chunks),
      resetCode: isAnswered ? 0 : stream.rstCode,
    });
  });
}
