import { readdirSync, readFileSync } from 'node:fs';

interface Sample {
  readonly hours: number;
  readonly bytes: number;
}

const mib = 1024 * 1024;

/** Follows what a process keeps in memory of its own, and how many files it has open. */
export class MemoryWatch {
  readonly #samples: Sample[] = [];
  readonly #files: number[] = [];
  readonly #pid: number;
  readonly #startedAt = performance.now();

  constructor(pid: number) {
    this.#pid = pid;
  }

  sample(): void {
    const bytes = anonymousBytes(this.#pid);
    if (bytes === undefined) throw new Error(`process ${this.#pid} has ended, and should not have`);
    this.#samples.push({ hours: (performance.now() - this.#startedAt) / 3_600_000, bytes });
    this.#files.push(readdirSync(`/proc/${this.#pid}/fd`).length);
  }

  /**
   * MiB per hour, of a line through the lowest point of each window: between two collections of garbage memory rises by far more than it does for
   * good. NaN when there are too few windows.
   */
  slope(warmUpHours: number, windowHours: number): number {
    const lowest = new Map<number, Sample>();
    for (const sample of this.#samples) {
      if (sample.hours < warmUpHours) continue;
      const window = Math.floor((sample.hours - warmUpHours) / windowHours);
      const known = lowest.get(window);
      if (known === undefined || sample.bytes < known.bytes) lowest.set(window, sample);
    }
    return slopeOf([...lowest.values()]) / mib;
  }

  /** MiB. */
  get highest(): number {
    return Math.max(...this.#samples.map(({ bytes }) => bytes)) / mib;
  }

  get latest(): number {
    return (this.#samples.at(-1)?.bytes ?? 0) / mib;
  }

  /** Open files: the median of the first and of the last tenth. */
  get files(): { readonly first: number; readonly last: number } {
    const tenth = Math.max(1, Math.floor(this.#files.length / 10));
    return { first: median(this.#files.slice(0, tenth)), last: median(this.#files.slice(-tenth)) };
  }
}

/** RssAnon: what no file stands behind. The database is mapped and does not count. */
function anonymousBytes(pid: number): number | undefined {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const kib = /^RssAnon:\s+(\d+) kB$/m.exec(status)?.[1];
  return kib === undefined ? undefined : Number(kib) * 1024;
}

/** Least squares. */
function slopeOf(samples: readonly Sample[]): number {
  const mean = (of: (sample: Sample) => number): number => samples.reduce((sum, sample) => sum + of(sample), 0) / samples.length;
  const [hours, bytes] = [mean((sample) => sample.hours), mean((sample) => sample.bytes)];
  const covariance = mean((sample) => (sample.hours - hours) * (sample.bytes - bytes));
  return covariance / mean((sample) => (sample.hours - hours) ** 2);
}

function median(numbers: readonly number[]): number {
  return numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? 0;
}
