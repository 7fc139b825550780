import type { Log, LogBatch } from '../../replica/ports.ts';

/** The log of a member that lives in memory only: there is nothing to outlive the process, so everything is as durable at once as it will be. */
export class MemoryLog implements Log {
  append(_batch: LogBatch, durable: () => void): void {
    durable();
  }

  release(): void {}

  async close(): Promise<void> {}
}
