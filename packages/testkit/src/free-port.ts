import { createServer } from 'node:net';

const lowest = 12_000;
const highest = 32_000;
const blockSize = 100;

/** Where this process looks next. Others that look at the same time begin elsewhere. */
let next = lowest + ((process.pid * blockSize) % (highest - lowest));

/**
 * A TCP port of 127.0.0.1 that was free a moment ago and that this process has not given out lately: for binaries that cannot choose one themselves and
 * say which. It lies below the ports that the system gives to outgoing connections, so that none of them sits on it while a server that is to come
 * back to it is down.
 */
export async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < highest - lowest; attempt++) {
    const port = next;
    next = port + 1 < highest ? port + 1 : lowest;
    if (await isFree(port)) return port;
  }
  throw new Error(`no free port between ${lowest} and ${highest}`);
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.on('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}
