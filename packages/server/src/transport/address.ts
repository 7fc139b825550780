/** Where a member listens for the others, as a socket has it. */
export interface PeerAddressParts {
  readonly host: string;
  readonly port: number;
}

/** `http://10.0.0.7:2380`, `http://[::1]:2380`, `http://cart-1.local:2380`. @throws TypeError for anything else */
export function parsePeerUrl(url: string): PeerAddressParts {
  const match = /^http:\/\/(\[[0-9a-fA-F:.]+\]|[^:/[\]]+):(\d{1,5})\/?$/.exec(url);
  const port = Number(match?.[2]);
  if (match?.[1] === undefined || port > 65_535) throw new TypeError(`members reach each other at http://host:port, not at ${url}`);
  return { host: match[1].replace(/^\[(.*)\]$/, '$1'), port };
}
