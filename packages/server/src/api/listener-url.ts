import { isIP } from 'node:net';

/** Where to listen. */
export type ListenUrl =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string };

/**
 * Reads a listen URL as etcd has them: `http://127.0.0.1:2379`, `http://[::1]:0`, `http://localhost:2379`, `unix:///run/etcd.sock`.
 *
 * @throws Error with etcd's text for what etcd refuses; `https` and `unixs` are refused because this version has no TLS
 */
export function parseListenUrl(text: string): ListenUrl {
  checkUrl(text);
  const address = addressOf(text);
  if (text.startsWith('unix')) return { kind: 'unix', path: address };
  const { host, port } = splitHostPort(address);
  if (host !== 'localhost' && isIP(host) === 0) throw new Error(`expected IP in URL for binding (${text})`);
  return { kind: 'tcp', host, port };
}

/**
 * Checks the form of a URL of a member, to listen at or to advertise.
 *
 * @throws Error with etcd's text
 */
export function checkUrl(text: string): void {
  const scheme = /^([a-z][a-z0-9+.-]*):\/\//.exec(text)?.[1];
  if (scheme !== 'http' && scheme !== 'https' && scheme !== 'unix' && scheme !== 'unixs') {
    throw new Error(`URL scheme must be http, https, unix, or unixs: ${text}`);
  }
  if (scheme === 'https' || scheme === 'unixs') throw new Error(`TLS is not supported by this version: ${text}`);
  if (scheme === 'unix') return;
  const [address, ...path] = text.slice('http://'.length).split('/');
  if (!/^(\[[^\]]*\]|[^:]*):\d+$/.test(address ?? '')) throw new Error(`URL address does not have the form "host:port": ${text}`);
  if (path.join('/') !== '') throw new Error(`URL must not contain a path: ${text}`);
}

/** The URL with the port that was really bound where it asked for any. */
export function withBoundPort(text: string, port: number | undefined): string {
  return port === undefined ? text : text.replace(/:0$/, `:${port}`);
}

/** `host:port` or the path of a socket. */
function addressOf(url: string): string {
  return url.slice(url.indexOf('://') + 3).replace(/(?<=:\d+)\/$/, '');
}

function splitHostPort(address: string): { readonly host: string; readonly port: number } {
  const colon = address.lastIndexOf(':');
  return { host: address.slice(0, colon).replace(/^\[(.*)\]$/, '$1'), port: Number(address.slice(colon + 1)) };
}
