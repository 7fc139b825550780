import { isIP } from 'node:net';
import { checkUrl } from '../membership/member-url.ts';

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

const httpPrefix = 'http://';

/** The URL with the port that was really bound where it asked for any. */
export function withBoundPort(text: string, port: number | undefined): string {
  return port === undefined ? text : text.replace(/:0$/, `:${port}`);
}
