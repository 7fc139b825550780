import { Maintenance } from '@conclave/protocol';
import type { WatchStream } from './watch-stream.ts';

const versionTimeoutMs = 2_000;

/**
 * Whether a server's word of progress may be believed, asked of the member that gives it; undefined: it did not answer. Before 3.4.25 and 3.5.8
 * the word can overtake the events that it says have been told.
 */
export function askWhetherOrdered(stream: WatchStream, done: (isOrdered: boolean | undefined) => void): void {
  const { path, input, output } = Maintenance.methods.status;
  stream.ask(path, input.encode({}), versionTimeoutMs, (response) => {
    done(response && isOrdered(output.decode(response).version));
  });
}

function isOrdered(version: string): boolean {
  const [major = 0, minor = 0, patch = 0] = version.split(/[.-]/).map(Number);
  if (major !== 3) return major > 3;
  return minor > 5 || (minor === 5 && patch >= 8) || (minor === 4 && patch >= 25);
}
