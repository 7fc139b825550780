import { invalidArgument } from '../errors/conclave-error.ts';

/** What a user's endpoints come to. */
export interface Endpoints {
  /** Addresses for the transport. */
  readonly addresses: readonly string[];
  /** Whether they speak TLS; undefined: none of them says. */
  readonly isSecure: boolean | undefined;
}

/**
 * Reads what a user writes: `host:port`, `http://host:port`, `https://host:port`, `[v6]:port`, `unix:/path` or `unix:///path`; one of them, a
 * list, or several with commas between them. A host without a port gets 2379. Anything that looks like none of these is left to the
 * transport, which may have addresses of its own.
 */
export function parseEndpoints(endpoints: string | readonly string[]): Endpoints {
  const parts = typeof endpoints === 'string' ? endpoints.split(',') : endpoints;
  const parsed = parts.map((part) => parseEndpoint(part.trim()));
  if (parsed.length === 0) throw invalidArgument('at least one endpoint is needed');
  const secure = parsed.find(({ isSecure }) => isSecure === true);
  const plain = parsed.find(({ isSecure }) => isSecure === false);
  if (secure !== undefined && plain !== undefined) {
    throw invalidArgument(`${secure.text} speaks TLS and ${plain.text} does not: a client speaks it to all of its endpoints or to none`);
  }
  const addresses = [...new Set(parsed.map(({ address }) => address))];
  return { addresses, isSecure: (secure ?? plain)?.isSecure };
}

const defaultPort = 2379;

interface Endpoint {
  readonly text: string;
  readonly address: string;
  readonly isSecure: boolean | undefined;
}

function parseEndpoint(text: string): Endpoint {
  if (text === '') throw invalidArgument('an endpoint is empty');
  if (/^unix:/.test(text)) return { text, address: text.replace(/^unix:\/\//, 'unix:'), isSecure: false };
  const scheme = /^https?:\/\//.exec(text)?.[0];
  const bare = text.slice(scheme?.length ?? 0).replace(/\/$/, '');
  if (bare === '') throw invalidArgument(`${text}: no host`);
  const isHostAlone = /^(\[[^\]]+\]|[^:[\]/]+)$/.test(bare);
  const address = isHostAlone && (scheme !== undefined || looksLikeHost(bare)) ? `${bare}:${defaultPort}` : bare;
  return { text, address, isSecure: scheme === undefined ? undefined : scheme === 'https://' };
}

function looksLikeHost(name: string): boolean {
  return name.startsWith('[') || name === 'localhost' || name.includes('.');
}
