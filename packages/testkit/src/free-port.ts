import { createServer } from 'node:net';

/** A TCP port of 127.0.0.1 that was free a moment ago: for binaries that cannot choose one themselves and say which. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => {
        if (typeof address === 'object' && address !== null) resolve(address.port);
        else reject(new Error('a listening TCP server has no port'));
      });
    });
  });
}
