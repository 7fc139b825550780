import {
  CompactionRequest,
  CompactionResponse,
  DeleteRangeRequest,
  DeleteRangeResponse,
  findWireError,
  KV,
  Lease,
  LeaseGrantRequest,
  LeaseGrantResponse,
  LeaseKeepAliveRequest,
  LeaseKeepAliveResponse,
  LeaseRevokeRequest,
  LeaseRevokeResponse,
  LeaseTimeToLiveRequest,
  LeaseTimeToLiveResponse,
  type MessageType,
  PutRequest,
  PutResponse,
  RangeRequest,
  RangeResponse,
  type ResponseHeader,
  StatusCode,
  TxnRequest,
  TxnResponse,
  Watch,
  WatchRequest,
  WatchResponse,
} from '@conclave/protocol';
import type { CallEnd, ClientStream, Connection, StreamReceiver, Transport } from '@conclave/wire';
import type { HistoryRecorder, OpenWatch, PendingOperation, Request, Response } from '../history.ts';
import {
  deleteRangeOf,
  deleteRangeResponseOf,
  eventOf,
  NotRecordable,
  putOf,
  putResponseOf,
  rangeOf,
  rangeResponseOf,
  textOf,
  txnOf,
  txnResponseOf,
  watchOf,
} from './wire-history.ts';

export interface RecordingOptions {
  readonly recorder: HistoryRecorder;
  /** The number of the client in the history. */
  readonly client: number;
  /** Milliseconds, on the clock of the whole history. */
  readonly now: () => number;
}

/**
 * A transport that writes down, as a history, every request on keys, leases and watches that passes, and what was answered: whoever makes the calls,
 * recipes included, and as the wire says it, with the revision and the member of every header.
 *
 * @example
 * const client = await connect({ endpoints, transport: recordingTransport(transport, { recorder, client: 1, now }) });
 */
export function recordingTransport(inner: Transport, options: RecordingOptions): Transport {
  return (address) => record(inner(address), options);
}

function record(connection: Connection, options: RecordingOptions): Connection {
  return {
    get address() {
      return connection.address;
    },
    get state() {
      return connection.state;
    },
    get failure() {
      return connection.failure;
    },
    onState: (listener) => connection.onState(listener),
    connect: () => connection.connect(),
    ping: (timeoutMs, done) => connection.ping(timeoutMs, done),
    close: () => connection.close(),
    unary(path, request, callOptions, done) {
      const procedure = unaryProcedures.get(path);
      const settle = procedure && recordUnary(procedure, request, options);
      if (settle === undefined) return connection.unary(path, request, callOptions, done);
      return connection.unary(path, request, callOptions, (end, response) => {
        settle(end, response);
        done(end, response);
      });
    },
    stream(path, callOptions, receiver) {
      const recorder =
        path === Watch.methods.watch.path
          ? new WatchRecording(options)
          : path === Lease.methods.leaseKeepAlive.path
            ? new KeepAliveRecording(options)
            : undefined;
      if (recorder === undefined) return connection.stream(path, callOptions, receiver);
      return tappedStream((tapped) => connection.stream(path, callOptions, tapped), receiver, recorder);
    },
  };
}

// ---- unary ----------------------------------------------------------------------------------------------------------------------------

interface Procedure {
  readonly isMutation: boolean;
  /** @throws NotRecordable */
  readonly request: (bytes: Uint8Array) => Request;
  readonly response: (bytes: Uint8Array) => { readonly header: ResponseHeader | undefined; readonly response: Response };
}

function procedure<In, Out extends { header: ResponseHeader | undefined }>(
  input: MessageType<In>,
  output: MessageType<Out>,
  isMutation: boolean,
  toRequest: (message: In) => Request,
  toResponse: (message: Out) => Response,
): Procedure {
  return {
    isMutation,
    request: (bytes) => toRequest(input.decode(bytes)),
    response: (bytes) => {
      const message = output.decode(bytes);
      return { header: message.header, response: toResponse(message) };
    },
  };
}

const unaryProcedures: ReadonlyMap<string, Procedure> = new Map([
  [KV.methods.put.path, procedure(PutRequest, PutResponse, true, putOf, putResponseOf)],
  [KV.methods.range.path, procedure(RangeRequest, RangeResponse, false, rangeOf, rangeResponseOf)],
  [KV.methods.deleteRange.path, procedure(DeleteRangeRequest, DeleteRangeResponse, true, deleteRangeOf, deleteRangeResponseOf)],
  [KV.methods.txn.path, procedure(TxnRequest, TxnResponse, true, txnOf, txnResponseOf)],
  [
    KV.methods.compact.path,
    procedure(
      CompactionRequest,
      CompactionResponse,
      true,
      ({ revision }) => ({ type: 'compact', revision }),
      () => ({ type: 'compact' }),
    ),
  ],
  [
    Lease.methods.leaseGrant.path,
    procedure(
      LeaseGrantRequest,
      LeaseGrantResponse,
      true,
      ({ id, ttl }) => ({ type: 'leaseGrant', ttl, ...(id !== 0n && { id: id.toString() }) }),
      ({ id, ttl }) => ({ type: 'leaseGrant', id: id.toString(), ttl }),
    ),
  ],
  [
    Lease.methods.leaseRevoke.path,
    procedure(
      LeaseRevokeRequest,
      LeaseRevokeResponse,
      true,
      ({ id }) => ({ type: 'leaseRevoke', id: id.toString() }),
      () => ({ type: 'leaseRevoke' }),
    ),
  ],
  [
    Lease.methods.leaseTimeToLive.path,
    procedure(
      LeaseTimeToLiveRequest,
      LeaseTimeToLiveResponse,
      false,
      ({ id, keys }) => ({ type: 'leaseTimeToLive', id: id.toString(), ...(keys && { keys }) }),
      ({ ttl, grantedTtl, keys }) => ({ type: 'leaseTimeToLive', ttl, grantedTtl, ...(keys.length > 0 && { keys: keys.map(textOf) }) }),
    ),
  ],
]);

function recordUnary(
  { isMutation, request, response }: Procedure,
  bytes: Uint8Array,
  { recorder, client, now }: RecordingOptions,
): ((end: CallEnd, response: Uint8Array | undefined) => void) | undefined {
  let pending: PendingOperation;
  try {
    pending = recorder.call(client, now(), request(bytes));
  } catch (error) {
    if (error instanceof NotRecordable) return undefined;
    throw error;
  }
  return (end, answer) => {
    if (answer === undefined) settleFailed(pending, now(), end, isMutation);
    else settleAnswered(pending, now(), response(answer));
  };
}

function settleAnswered(pending: PendingOperation, at: number, { header, response }: ReturnType<Procedure['response']>): void {
  pending.ok(at, header?.revision ?? 0, response, header?.memberId.toString());
}

/** Refusals in the words of gRPC alone: the request was looked at and turned down. */
const refusals: ReadonlySet<number> = new Set([
  StatusCode.INVALID_ARGUMENT,
  StatusCode.NOT_FOUND,
  StatusCode.ALREADY_EXISTS,
  StatusCode.FAILED_PRECONDITION,
  StatusCode.OUT_OF_RANGE,
  StatusCode.UNIMPLEMENTED,
]);

function settleFailed(pending: PendingOperation, at: number, end: CallEnd, isMutation: boolean): void {
  const row = findWireError(end.code, end.message);
  const stated = end.trailer('conclave-outcome');
  const isRefused =
    stated === undefined
      ? (row?.outcome ?? (refusals.has(end.code) ? 'not-applied' : 'unknown')) === 'not-applied'
      : stated === 'not-applied';
  if (!isMutation || end.notProcessed || isRefused)
    pending.failed(at, row?.key ?? (end.notProcessed ? 'unavailable' : `status-${end.code}`));
  else pending.unknown(at);
}

// ---- streams --------------------------------------------------------------------------------------------------------------------------

interface StreamRecording {
  sent(bytes: Uint8Array): void;
  received(bytes: Uint8Array): void;
  ended(): void;
}

function tappedStream(
  open: (receiver: StreamReceiver) => ClientStream,
  receiver: StreamReceiver,
  recording: StreamRecording,
): ClientStream {
  const stream = open({
    onMessage(bytes) {
      recording.received(bytes);
      receiver.onMessage(bytes);
    },
    onDrain: () => receiver.onDrain?.(),
    onOpen: () => receiver.onOpen?.(),
    onEnd(end) {
      recording.ended();
      receiver.onEnd(end);
    },
  });
  return {
    write(bytes) {
      recording.sent(bytes);
      return stream.write(bytes);
    },
    halfClose: () => stream.halfClose(),
    pause: () => stream.pause(),
    resume: () => stream.resume(),
    cancel() {
      recording.ended();
      stream.cancel();
    },
  };
}

/** The watches of one stream. Creations are answered in the order they were asked for. */
class WatchRecording implements StreamRecording {
  readonly #options: RecordingOptions;
  readonly #unanswered: OpenWatch[] = [];
  readonly #open = new Map<bigint, OpenWatch>();
  #hasEnded = false;

  constructor(options: RecordingOptions) {
    this.#options = options;
  }

  sent(bytes: Uint8Array): void {
    const { recorder, client, now } = this.#options;
    const { createRequest, cancelRequest } = WatchRequest.decode(bytes);
    if (createRequest !== undefined) this.#unanswered.push(recorder.watch(client, now(), watchOf(createRequest)));
    if (cancelRequest !== undefined) this.#close(cancelRequest.watchId);
  }

  received(bytes: Uint8Array): void {
    if (this.#hasEnded) return;
    const response = WatchResponse.decode(bytes);
    const { header, watchId, created, canceled, events, fragment } = response;
    const time = this.#options.now();
    const revision = header?.revision ?? 0;
    if (created) {
      const watch = this.#unanswered.shift();
      if (watch === undefined) throw new Error('a watch was created that nobody asked for');
      watch.message({ type: 'created', time, revision });
      if (!canceled) this.#open.set(watchId, watch);
      else this.#canceled(watch, response, time, revision);
      return;
    }
    const watch = this.#open.get(watchId);
    if (canceled) {
      this.#open.delete(watchId);
      if (watch !== undefined) this.#canceled(watch, response, time, revision);
    } else if (events.length > 0) {
      watch?.message({ type: 'events', time, revision, events: events.map(eventOf), ...(fragment && { isFragment: true }) });
    } else {
      // Without an id it is about all of them.
      for (const one of watch === undefined ? this.#open.values() : [watch]) one.message({ type: 'progress', time, revision });
    }
  }

  ended(): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    const time = this.#options.now();
    for (const watch of [...this.#open.values(), ...this.#unanswered]) watch.message({ type: 'closed', time });
  }

  #close(watchId: bigint): void {
    this.#open.get(watchId)?.message({ type: 'closed', time: this.#options.now() });
    this.#open.delete(watchId);
  }

  #canceled(watch: OpenWatch, { compactRevision, cancelReason }: WatchResponse, time: number, revision: number): void {
    watch.message({
      type: 'canceled',
      time,
      revision,
      ...(compactRevision > 0 && { compactRevision }),
      ...(cancelReason !== '' && { reason: cancelReason }),
    });
  }
}

/** Renewals on one stream: those of one lease are answered in the order they were sent. */
class KeepAliveRecording implements StreamRecording {
  readonly #options: RecordingOptions;
  readonly #unanswered = new Map<bigint, PendingOperation[]>();
  #hasEnded = false;

  constructor(options: RecordingOptions) {
    this.#options = options;
  }

  sent(bytes: Uint8Array): void {
    const { recorder, client, now } = this.#options;
    const { id } = LeaseKeepAliveRequest.decode(bytes);
    const pending = recorder.call(client, now(), { type: 'leaseKeepAlive', id: id.toString() });
    const waiting = this.#unanswered.get(id);
    if (waiting === undefined) this.#unanswered.set(id, [pending]);
    else waiting.push(pending);
  }

  received(bytes: Uint8Array): void {
    if (this.#hasEnded) return;
    const { id, ttl, header } = LeaseKeepAliveResponse.decode(bytes);
    const pending = this.#unanswered.get(id)?.shift();
    pending?.ok(this.#options.now(), header?.revision ?? 0, { type: 'leaseKeepAlive', ttl }, header?.memberId.toString());
  }

  ended(): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    for (const waiting of this.#unanswered.values()) for (const pending of waiting) pending.unknown(this.#options.now());
  }
}
