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
  if (text.startsWith('unix:')) return { kind: 'unix', path: text.replace(/^unix:(\/\/)?/, '') };
  const address = text.slice(httpPrefix.length);
  const colon = address.lastIndexOf(':');
  const host = address.slice(0, colon).replace(/^\[(.*)\]$/, '$1');
  if (host !== 'localhost' && isIP(host) === 0) throw new Error(`expected IP in URL for binding (${text})`);
  return { kind: 'tcp', host, port: Number(address.slice(colon + 1)) };
}

/**
 * Checks the form of a URL of a member, to listen at or to advertise.
 *
 * @throws Error with etcd's text
 */
export function checkUrl(text: string): void {
  const scheme = /^([a-z]+):/.exec(text)?.[1];
  if (scheme === 'https' || scheme === 'unixs') throw new Error(`TLS is not supported by this version: ${text}`);
  if (scheme === 'unix') return;
  if (!text.startsWith(httpPrefix)) throw new Error(`URL scheme must be http, https, unix, or unixs: ${text}`);
  const address = /^[^/]*/.exec(text.slice(httpPrefix.length))?.[0] ?? '';
  if (!/^(\[[^\]]*\]|[^:]*):\d+$/.test(address)) throw new Error(`URL address does not have the form "host:port": ${text}`);
  if (text.length > httpPrefix.length + address.length) throw new Error(`URL must not contain a path: ${text}`);
}

const httpPrefix = 'http://';

/** The URL with the port that was really bound where it asked for any. */
export function withBoundPort(text: string, port: number | undefined): string {
  return port === undefined ? text : text.replace(/:0$/, `:${port}`);
}
