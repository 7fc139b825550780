import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { AlarmType, etcdApiVersion, etcdClusterVersion, RangeRequest } from '@conclave/protocol';
import type { Runtime, Timer } from '@conclave/wire';
import type { ServedMember } from './member.ts';

/** What the HTTP door needs of the member. */
export type HttpMember = Pick<ServedMember, 'runtime'> & {
  readonly replica: Pick<ServedMember['replica'], 'leader' | 'isLearner' | 'readBarrier'>;
  readonly applier: Pick<ServedMember['applier'], 'alarms'>;
  readonly mvcc: Pick<ServedMember['mvcc'], 'range'>;
};

/** How long a connection may take over a request, and how long it may stay without one. Milliseconds. */
const requestMs = 10_000;
const idleMs = 60_000;

/**
 * The HTTP/1 door: health for balancers and orchestrators, and the version. As in etcd, everything is a GET, small and uncached.
 *
 * - `/health`: `{"health":"true","reason":""}`, 503 with the reason otherwise; `?serializable=true` asks this member alone
 * - `/livez`, `/readyz`: `ok`, or the checks that failed, with 503; `?verbose`, `?exclude=check`, `/livez/<check>`
 * - `/version`
 */
export class HttpDoor {
  readonly #member: HttpMember;
  readonly #server: Server;
  readonly #sockets = new Map<Socket, Timer>();

  constructor(member: HttpMember) {
    this.#member = member;
    this.#server = createServer({ maxHeaderSize: 16 * 1024 }, (request, response) => this.#serve(request, response));
  }

  accept(socket: Socket): void {
    // A server that does not listen itself does not enforce Node's own timeouts.
    this.#expect(socket, requestMs);
    socket.once('close', () => this.#forget(socket));
    this.#server.emit('connection', socket);
  }

  /** Ends every connection. */
  close(): void {
    for (const socket of this.#sockets.keys()) socket.destroy();
  }

  #expect(socket: Socket, withinMs: number): void {
    this.#sockets.get(socket)?.cancel();
    this.#sockets.set(
      socket,
      this.#runtime.timer(withinMs, () => socket.destroy(), { background: true }),
    );
  }

  #forget(socket: Socket): void {
    this.#sockets.get(socket)?.cancel();
    this.#sockets.delete(socket);
  }

  get #runtime(): Runtime {
    return this.#member.runtime;
  }

  #serve(request: IncomingMessage, response: ServerResponse): void {
    const { socket } = request;
    this.#expect(socket, requestMs);
    response.once('finish', () => this.#expect(socket, idleMs));
    // A body is of no use here: the connection ends with the answer instead of waiting for all of it.
    if (request.method !== 'GET') response.setHeader('connection', 'close');
    const { path, query } = targetOf(request.url ?? '/');
    this.#answer(request.method ?? '', path, query).then(
      (answer) => send(response, answer),
      (error: unknown) => {
        this.#runtime.log.error({ path, error: String(error) }, 'an HTTP request failed');
        send(response, plain(500, 'internal error\n'));
      },
    );
  }

  async #answer(method: string, path: string, query: URLSearchParams): Promise<Answer> {
    const [, root = '', check, ...rest] = path.split('/');
    const checks = checksOf(root);
    if (rest.length > 0 || (check !== undefined && !checks?.includes(check))) return notFound;
    if (checks === undefined && root !== 'health' && root !== 'version') return notFound;
    if (method !== 'GET') return { ...plain(405, 'Method Not Allowed\n'), allow: 'GET' };
    if (root === 'version') return version;
    if (root === 'health') return this.#health(query);
    return this.#checks(check === undefined ? (checks ?? []) : [check], query);
  }

  async #health(query: URLSearchParams): Promise<Answer> {
    const serializable = query.get('serializable') === 'true';
    const excluded = query.getAll('exclude');
    const alarm = alarmNames.find(([name, type]) => this.#member.applier.alarms.has(type) && !excluded.includes(name));
    let reason = alarm === undefined ? '' : `ALARM ${alarm[0]}`;
    if (reason === '' && !serializable && this.#member.replica.leader === 0n) reason = 'RAFT NO LEADER';
    const failure = reason === '' ? await this.#readFailure(serializable) : undefined;
    if (failure !== undefined) reason = `RANGE ERROR:${failure}`;
    const health = { health: reason === '' ? 'true' : 'false', reason };
    return { status: reason === '' ? 200 : 503, type: 'text/plain; charset=utf-8', body: JSON.stringify(health) };
  }

  async #checks(names: readonly string[], query: URLSearchParams): Promise<Answer> {
    const excluded = query.getAll('exclude');
    const lines: string[] = [];
    let failed = false;
    for (const name of names.filter((each) => !excluded.includes(each))) {
      const failure = await this.#failureOf(name);
      failed ||= failure !== undefined;
      lines.push(failure === undefined ? `[+]${name} ok\n` : `[-]${name} failed: ${failure}\n`);
    }
    if (failed) return plain(503, `${lines.join('')}\n`);
    return plain(200, `${query.has('verbose') ? lines.join('') : ''}ok\n`);
  }

  async #failureOf(check: string): Promise<string | undefined> {
    const { replica, applier } = this.#member;
    if (check === 'serializable_read') return this.#readFailure(true);
    if (check === 'linearizable_read') return this.#readFailure(false);
    if (check === 'data_corruption') return applier.alarms.has(AlarmType.CORRUPT) ? 'alarm activated: CORRUPT' : undefined;
    return replica.isLearner ? 'the member is a learner' : undefined;
  }

  /** Reads a key, whether or not it is there; why it failed, if it did. */
  async #readFailure(serializable: boolean): Promise<string | undefined> {
    try {
      if (!serializable) await this.#barrier();
      await this.#member.mvcc.range(RangeRequest.create({ key: probeKey, limit: 1, keysOnly: true }), atOnce);
      return undefined;
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    }
  }

  #barrier(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#member.replica.readBarrier((error) => (error === undefined ? resolve() : reject(error)));
    });
  }
}

const probeKey = new Uint8Array([0]);
/** A read of one key needs no second slice. */
const atOnce = { isSpent: () => false, nextSlice: () => Promise.resolve() };

const alarmNames = [
  ['NOSPACE', AlarmType.NOSPACE],
  ['CORRUPT', AlarmType.CORRUPT],
] as const;

const livezChecks = ['serializable_read'];
const readyzChecks = ['data_corruption', 'serializable_read', 'linearizable_read', 'non_learner'];

function checksOf(root: string): readonly string[] | undefined {
  if (root === 'livez') return livezChecks;
  return root === 'readyz' ? readyzChecks : undefined;
}

interface Answer {
  readonly status: number;
  readonly type: string;
  readonly body: string;
  readonly allow?: string;
}

const version: Answer = {
  status: 200,
  type: 'application/json',
  body: JSON.stringify({ etcdserver: etcdApiVersion, etcdcluster: etcdClusterVersion, storage: etcdClusterVersion }),
};

const notFound: Answer = plain(404, '404 page not found\n');

function plain(status: number, body: string): Answer {
  return { status, type: 'text/plain; charset=utf-8', body };
}

function send(response: ServerResponse, answer: Answer): void {
  const { status, type, body, allow } = answer;
  response.writeHead(status, {
    'content-type': type,
    'content-length': Buffer.byteLength(body),
    'x-content-type-options': 'nosniff',
    ...(allow === undefined ? {} : { allow }),
  });
  response.end(body);
}

/** Split by hand: a target may be anything a client sends, and `URL` throws on some of it. */
function targetOf(url: string): { readonly path: string; readonly query: URLSearchParams } {
  const [path = '', ...query] = url.split('?');
  return { path, query: new URLSearchParams(query.join('?')) };
}
