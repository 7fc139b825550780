import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const live = new Set<string>();

process.on('exit', () => {
  for (const path of live) rmSync(path, { recursive: true, force: true });
});

/** A new empty directory, removed when disposed of and at the latest when this process exits. */
export class ScratchDir implements Disposable {
  readonly path: string;

  constructor(purpose: string) {
    this.path = mkdtempSync(join(tmpdir(), `conclave-${purpose}-`));
    live.add(this.path);
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true });
    live.delete(this.path);
  }
}
