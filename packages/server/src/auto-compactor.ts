import { CompactionRequest } from '@conclave/protocol';
import type { Runtime, Timer } from '@conclave/wire';
import type { Applied } from './apply/apply.ts';
import type { MemberSettings } from './limits.ts';

export interface AutoCompactorOptions {
  readonly runtime: Runtime;
  readonly settings: Pick<MemberSettings, 'autoCompactionMode' | 'autoCompactionRetention'>;
  readonly mvcc: { readonly revision: number; readonly compactRevision: number };
  readonly replica: { readonly isLeader: boolean; propose(kind: 'compaction', body: Uint8Array): Promise<Applied> };
}

/** In mode `revision`: how often the revision is looked at. */
const revisionModeIntervalMs = 5 * 60 * 1000;
/** In mode `periodic`: the longest time between two compactions. */
const periodMaxMs = 60 * 60 * 1000;
/** In mode `periodic`: how often within a period the revision is noted, and a compaction that failed tried again. */
const notesPerPeriod = 10;

/**
 * Compacts what is older than the retention, by itself: the leader proposes an ordinary compaction, so all members drop the same history.
 * The pace is etcd's. Mode `revision` keeps the newest `autoCompactionRetention` revisions and looks every five minutes. Mode `periodic` keeps what
 * came to be within the last `autoCompactionRetention` milliseconds: every member notes its revision ten times in a period (the retention, at most
 * an hour), so that a new leader knows what to keep.
 */
export class AutoCompactor {
  readonly #options: AutoCompactorOptions;
  /** Mode `periodic`: oldest first. */
  readonly #notes: number[] = [];
  #lastCompactionAt: number;
  #lastRevision = 0;
  #timer: Timer | undefined;
  #isStopped = false;

  constructor(options: AutoCompactorOptions) {
    this.#options = options;
    this.#lastCompactionAt = options.runtime.monotonic();
    if (options.settings.autoCompactionRetention > 0) this.#arm();
  }

  stop(): void {
    this.#isStopped = true;
    this.#timer?.cancel();
  }

  #arm(): void {
    if (this.#isStopped) return;
    this.#timer = this.#options.runtime.timer(this.#intervalMs, () => this.#look(), { background: true });
  }

  get #periodMs(): number {
    return Math.min(this.#options.settings.autoCompactionRetention, periodMaxMs);
  }

  get #intervalMs(): number {
    return this.#options.settings.autoCompactionMode === 'revision' ? revisionModeIntervalMs : this.#periodMs / notesPerPeriod;
  }

  #look(): void {
    const revision = this.#options.settings.autoCompactionMode === 'revision' ? this.#beyondRevisions() : this.#beyondPeriod();
    if (revision === undefined || revision <= 0 || revision === this.#lastRevision || !this.#options.replica.isLeader) this.#arm();
    else void this.#compact(revision).finally(() => this.#arm());
  }

  #beyondRevisions(): number {
    return this.#options.mvcc.revision - this.#options.settings.autoCompactionRetention;
  }

  #beyondPeriod(): number | undefined {
    const { runtime, settings, mvcc } = this.#options;
    const kept = Math.floor(settings.autoCompactionRetention / this.#intervalMs) + 1;
    this.#notes.push(mvcc.revision);
    if (this.#notes.length > kept) this.#notes.shift();
    const isDue = this.#notes.length === kept && runtime.monotonic() - this.#lastCompactionAt >= this.#periodMs;
    return isDue ? this.#notes[0] : undefined;
  }

  async #compact(revision: number): Promise<void> {
    const { runtime, mvcc, replica } = this.#options;
    try {
      const applied = await replica.propose('compaction', CompactionRequest.encode({ revision }));
      // Somebody may have compacted further by hand.
      if (applied.kind === 'failed' && mvcc.compactRevision < revision) throw applied.error;
      this.#lastRevision = revision;
      this.#lastCompactionAt = runtime.monotonic();
      runtime.log.info({ revision }, 'compacted what is older than the retention');
    } catch (error) {
      runtime.log.warn({ revision, error: String(error) }, 'the history could not be compacted, trying again later');
    }
  }
}
