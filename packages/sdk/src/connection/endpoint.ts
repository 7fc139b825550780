import { invalidArgument } from '../errors/conclave-error.ts';

/**
 * Addresses for the transport from what a user writes: `host:port`, `http://host:port`, `[v6]:port`, `unix:/path` or `unix:///path`; one of
 * them, a list, or several with commas between them. A host without a port gets 2379. Anything that looks like none of these is left to the
 * transport, which may have addresses of its own.
 */
export function parseEndpoints(endpoints: string | readonly string[]): string[] {
  const parts = typeof endpoints === 'string' ? endpoints.split(',') : endpoints;
  const addresses = parts.map((part) => parseEndpoint(part.trim()));
  if (addresses.length === 0) throw invalidArgument('at least one endpoint is needed');
  return [...new Set(addresses)];
}

const defaultPort = 2379;

function parseEndpoint(endpoint: string): string {
  if (endpoint === '') throw invalidArgument('an endpoint is empty');
  if (endpoint.startsWith('https://')) {
    throw invalidArgument(`${endpoint}: TLS is configured on the transport; pass one that has it and the address as host:port`);
  }
  if (/^unix:/.test(endpoint)) return endpoint.replace(/^unix:\/\//, 'unix:');
  const bare = endpoint.replace(/^http:\/\//, '').replace(/\/$/, '');
  if (bare === '') throw invalidArgument(`${endpoint}: no host`);
  if (/^(\[[^\]]+\]|[^:[\]/]+)$/.test(bare)) return looksLikeHost(bare) ? `${bare}:${defaultPort}` : bare;
  return bare;
}

function looksLikeHost(name: string): boolean {
  return name.startsWith('[') || name === 'localhost' || name.includes('.');
}
