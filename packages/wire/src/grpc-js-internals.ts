import type { Server, ServerInterceptingCall } from '@grpc/grpc-js';

/**
 * What the answering end needs of grpc-js and grpc-js does not offer: four private fields, reached by name in the one release we depend on.
 * Whoever raises the version runs the tests of `grpc-server`; a field that is gone throws here, when the first server is made or the first
 * call arrives, instead of changing behaviour silently.
 */

type BaseCall = ConstructorParameters<typeof ServerInterceptingCall>[0];

/** Takes the bytes of a stream as they come and gives whole messages, each with its five-byte prefix. Throws to end the call with RESOURCE_EXHAUSTED. */
export interface Decoder {
  write(data: Buffer): Buffer[];
}

/** Sends every path, served or not, to one handler: grpc-js would answer an unknown one itself, in other words than gRPC's. */
export function handleEveryPath(server: Server): void {
  const handlers: unknown = fieldOf(server, 'handlers');
  if (!(handlers instanceof Map)) throw new Error('grpc-js has changed: Server.handlers is not a Map');
  const handlerOf = (path: string): object => ({ func: () => undefined, serialize: identity, deserialize: identity, type: 'bidi', path });
  Reflect.set(server, 'handlers', { get: handlerOf, has: () => true });
}

/**
 * Replaces the message assembly of one call. grpc-js keeps one buffer per DATA frame until a message is whole: 2 MiB sent in one-byte frames
 * would cost hundreds of megabytes. Its text for an oversized message is not gRPC's either.
 */
export function useDecoder(call: BaseCall, decoder: Decoder): void {
  fieldOf(call, 'decoder');
  Reflect.set(call, 'decoder', decoder);
}

/** The encoding the caller named for its messages; `identity` when it named none. grpc-js takes it out of the metadata. */
export function encodingOf(call: BaseCall): string {
  return String(fieldOf(call, 'incomingEncoding'));
}

/**
 * grpc-js cuts a timeout to 32 bits of milliseconds: a deadline a month away may come out negative, and its timer fires at once. Such a timer is
 * removed. Returns whether the call was one of these.
 */
export function clearOverflownDeadline(call: BaseCall, wallNow: number): boolean {
  if (Number(call.getDeadline()) >= wallNow - longestHonestDelayMs) return false;
  const timer = fieldOf(call, 'deadlineTimer') as NodeJS.Timeout | null;
  timer?.[Symbol.dispose]();
  return true;
}

/** A timeout of zero that waited in the loop for a while is not taken for an overflow. */
const longestHonestDelayMs = 60_000;

function identity(bytes: Buffer): Buffer {
  return bytes;
}

function fieldOf(object: object, name: string): unknown {
  if (!Reflect.has(object, name)) throw new Error(`grpc-js has changed: ${object.constructor.name}.${name} is missing`);
  return Reflect.get(object, name);
}
