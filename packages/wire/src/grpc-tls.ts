import { readFile } from 'node:fs/promises';
import { isIP, type Socket } from 'node:net';
import { connect, createSecureContext, type SecureContext } from 'node:tls';
import { CallCredentials, ChannelCredentials } from '@grpc/grpc-js';

/** PEM: as text that starts with `-----BEGIN`, as bytes, or as the path of a file that is read anew for each attempt to connect. */
export type Pem = string | Uint8Array;

/** How a server is recognised, and how this side says who it is. */
export interface TlsOptions {
  /** The authorities whose certificates are taken. Default: those that Node comes with. */
  readonly ca?: Pem | undefined;
  /** The certificate of this side, followed by those between it and the authority. Default: none. Needs `key`. */
  readonly cert?: Pem | undefined;
  /** The private key that belongs to `cert`. */
  readonly key?: Pem | undefined;
  /** The name that the server's certificate must be for. Default: the host of the address. */
  readonly servername?: string | undefined;
}

type SecureConnector = ReturnType<ChannelCredentials['_createSecureConnector']>;

/**
 * TLS for one address. Stands in for grpc-js's own, which reads certificates once for good, and sends an IP address as a server name, which
 * RFC 6066 forbids and Node warns of.
 */
export class TlsCredentials extends ChannelCredentials {
  readonly #tls: TlsOptions;
  readonly #host: string;

  constructor(address: string, tls: TlsOptions) {
    super();
    this.#tls = tls;
    this.#host = tls.servername ?? hostOf(address);
  }

  override _isSecure(): boolean {
    return true;
  }

  override _equals(other: ChannelCredentials): boolean {
    return other === this;
  }

  override _createSecureConnector(
    _target: unknown,
    _options: unknown,
    callCredentials: CallCredentials = CallCredentials.createEmpty(),
  ): SecureConnector {
    let secureContext: SecureContext;
    return {
      // Called before each attempt, and so the place to read what may have changed since the last one.
      waitForReady: async () => {
        secureContext = await contextOf(this.#tls);
      },
      connect: async (socket) => ({ socket: await this.#secure(socket, secureContext), secure: true }),
      getCallCredentials: () => callCredentials,
      destroy: () => undefined,
    };
  }

  #secure(socket: Socket, secureContext: SecureContext): Promise<Socket> {
    return new Promise((resolve, reject) => {
      const host = this.#host;
      const name = isIP(host) === 0 ? { servername: host } : {};
      const secured = connect({ socket, secureContext, host, ...name, ALPNProtocols: ['h2'] }, () => resolve(secured));
      secured.on('error', reject);
    });
  }
}

async function contextOf({ ca, cert, key }: TlsOptions): Promise<SecureContext> {
  const [authorities, chain, secret] = await Promise.all([ca, cert, key].map(read));
  return createSecureContext({
    minVersion: 'TLSv1.2',
    ...(authorities && { ca: authorities }),
    ...(chain && { cert: chain }),
    ...(secret && { key: secret }),
  });
}

async function read(pem: Pem | undefined): Promise<Buffer | string | undefined> {
  if (pem === undefined) return undefined;
  if (typeof pem !== 'string') return Buffer.from(pem);
  return pem.trimStart().startsWith('-----BEGIN') ? pem : readFile(pem);
}

function hostOf(address: string): string {
  const [, v6, name] = /^(?:\[([^\]]+)\]|(.*?))(?::\d+)?$/.exec(address) ?? [];
  return v6 ?? name ?? address;
}
