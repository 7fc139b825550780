import type { Message } from '@conclave/raft';

/** An append on its way to the disk, and what rests on it. */
export interface Write {
  /** Not readonly: answers that need no write of their own are added to the last one. */
  responses: readonly Message[];
  isDone: boolean;
}

/**
 * Appends under way, in their order. What raft promises in the responses of one is released when it and all before it are durable, never earlier:
 * a vote or an acknowledgement that a crash can take back elects two leaders or loses what a client was told is safe.
 */
export class Writes {
  readonly #release: (responses: readonly Message[]) => void;
  readonly #underWay: Write[] = [];

  constructor(release: (responses: readonly Message[]) => void) {
    this.#release = release;
  }

  begin(responses: readonly Message[]): Write {
    const write = { responses, isDone: false };
    this.#underWay.push(write);
    return write;
  }

  /** Releases at once where nothing is under way. */
  afterAll(responses: readonly Message[]): void {
    const last = this.#underWay.at(-1);
    if (last === undefined) this.#release(responses);
    else last.responses = [...last.responses, ...responses];
  }

  done(write: Write): void {
    write.isDone = true;
    while (this.#underWay[0]?.isDone === true) this.#release(this.#underWay.shift()!.responses);
  }
}
