import type { Logger, Runtime, Transport } from '@conclave/wire';
import type { TlsOptions } from '@conclave/wire/grpc-client';
import type { Credentials } from './connection/authenticator.ts';
import type { SyncOptions } from './connection/endpoint-sync.ts';
import type { Middleware } from './connection/middleware.ts';
import type { DiscoveryOptions } from './connection/srv-discovery.ts';
import type { Key } from './kv/text.ts';
import type { Metrics } from './metrics/metrics.ts';

export interface ConnectOptions {
  /**
   * The members to talk to: `host:port`, `http://host:port`, `https://host:port`, `[v6]:port`, `unix:/path`; several as a list or separated by
   * commas. Calls are spread over those that can be reached. Either all speak TLS or none does. Either this or `discovery` is needed.
   */
  readonly endpoints?: string | readonly string[] | undefined;
  /**
   * Find the members in DNS, as etcd's own tools do with `--discovery-srv`. Endpoints speak TLS if there are records for that, and must if `tls`
   * is given. Calls go to those of the best priority that can be reached, shared as the weights say. DNS is asked again when no endpoint can be
   * reached any more, and as often as `sync` says. As long as `tls.ca` does not say whom to trust, only hosts of the domain itself are taken:
   * otherwise a forged record could lead to any host with a certificate of its own.
   */
  readonly discovery?: DiscoveryOptions | undefined;
  /**
   * Whom to trust and who to be over TLS. Files are read anew for each attempt to connect, so that certificates that were replaced are used
   * without a restart, and connections that stand stay. Default: endpoints with `https://` speak TLS and are recognised by the authorities
   * that Node comes with.
   */
  readonly tls?: TlsOptions | undefined;
  /**
   * Who the client is: a name and a password, or a token from elsewhere. It obtains a token and renews it whenever the server asks for that, under
   * calls, watches and leases that go on. With a server that does not ask who its clients are, nothing changes. Default: nobody, or whom the server takes the certificate in `tls` for.
   */
  readonly credentials?: Credentials | undefined;
  /**
   * Follow the members of the cluster as `client.sync()` does, again and again. Without `discovery` only where clients can reach what the
   * members advertise (`--advertise-client-urls`). Default: the endpoints stay as they are given, or were found.
   */
  readonly sync?: SyncOptions | undefined;
  /** How connections are made. Default: gRPC over TCP, with TLS or without, or unix sockets. */
  readonly transport?: Transport | undefined;
  /** Clocks, timers, chance and log. Default: the system's, with a silent log. */
  readonly runtime?: Runtime | undefined;
  /**
   * Where to tell what an operator wants to know: endpoints lost and back, tokens, watches that lost their stream, leases at risk. A logger of
   * pino fits as it is. Never told: values, passwords, tokens. What it throws does not touch what is logged: it is thrown by itself, the first time, as an
   * uncaught exception. Default: the log of `runtime`.
   */
  readonly log?: Logger | undefined;
  /** What every call and every stream passes through, the first one first. Default: nothing. */
  readonly middleware?: readonly Middleware[] | undefined;
  /** Where to measure. Default: nowhere. */
  readonly metrics?: Metrics | undefined;
  /** Put before every key. Default: nothing. See `Namespace`. */
  readonly namespace?: Key | undefined;
  /** How long a call may take that does not say so itself, in milliseconds. Default: 5000. */
  readonly deadlineMs?: number | undefined;
  /**
   * After how much silence on an open stream the server is asked whether it lives, in milliseconds. Default: 10,000; less than 6,000 is raised
   * to that, as servers hang up on clients that ask more often. Unanswered calls are looked after much sooner.
   */
  readonly keepaliveMs?: number | undefined;
  /** How long it may take to answer that, in milliseconds; then the connection is given up. Default: 2000, at least 100. */
  readonly keepaliveTimeoutMs?: number | undefined;
  /**
   * Never go back: a read answered from below the highest revision this client had been told of when it asked is repeated, on another member if there is one,
   * until it is not, and rejects with `stale` when its time is up. That concerns `serializable` reads; others never go back. Default: false.
   */
  readonly ordered?: boolean | undefined;
  /** Return without waiting until an endpoint can be reached. Default: false. */
  readonly lazy?: boolean | undefined;
  /** Gives connecting up. It has no effect on the client afterwards. */
  readonly signal?: AbortSignal | undefined;
}
