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
