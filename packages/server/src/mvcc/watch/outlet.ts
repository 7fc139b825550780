import { bodySize, joinResponse, type ResponseBody } from './event-encoding.ts';

/** Whom a response is for. */
export interface Recipient {
  readonly idField: Uint8Array;
  /** Nothing may be sent to it any more. */
  readonly isClosed: boolean;
}

/** Responses that wait for room: the same bodies for several watchers of the stream, in the order they were delivered. */
interface Held {
  readonly bodies: readonly ResponseBody[];
  readonly recipients: Recipient[];
  /** The next to be written: which recipient, and which of its bodies. */
  recipient: number;
  body: number;
}

// What a waiting response costs beside the bytes it shares with others.
const recipientCost = 32;

/**
 * The way out of one stream: keeps the order, and bounds what waits for a caller that reads too slowly.
 *
 * Bytes are put together only when they can be written, so a thousand watchers of one stream that wait for the same event hold it once.
 */
export class Outlet {
  readonly #write: (response: Uint8Array) => boolean;
  readonly #maxHeldBytes: number;
  #held: Held[] = [];
  #heldBytes = 0;
  #isBlocked = false;
  #isClosed = false;
  /** Replies written since the outlet was blocked: they do not wait, whoever asks for them must be slowed down. */
  #repliesWhileBlocked = 0;

  constructor(write: (response: Uint8Array) => boolean, maxHeldBytes: number) {
    this.#write = write;
    this.#maxHeldBytes = maxHeldBytes;
  }

  /** True while what is delivered goes out at once. */
  get isReady(): boolean {
    return !this.#isBlocked && this.#held.length === 0;
  }

  get repliesWhileBlocked(): number {
    return this.#repliesWhileBlocked;
  }

  /** Sends a response, in one piece or in several. False: too much is waiting, nothing was taken. */
  deliver(recipient: Recipient, bodies: readonly ResponseBody[]): boolean {
    if (!this.isReady) return this.#hold(recipient, bodies);
    for (let at = 0; at < bodies.length; at++) {
      if (this.#isBlocked) {
        // The rest of a response must follow its beginning, whatever the bound says.
        this.#keep({ bodies, recipients: [recipient], recipient: 0, body: at });
        break;
      }
      this.#send(joinResponse(bodies[at]!, recipient.idField));
    }
    return true;
  }

  /** Sends a reply at once, in front of the events that wait. */
  reply(response: Uint8Array): void {
    if (this.#isBlocked) this.#repliesWhileBlocked++;
    this.#send(response);
  }

  /** There is room again. */
  drained(): void {
    this.#isBlocked = false;
    this.#repliesWhileBlocked = 0;
    let done = 0;
    while (done < this.#held.length && this.#release(this.#held[done]!)) done++;
    this.#held = this.#held.slice(done);
  }

  close(): void {
    this.#isClosed = true;
    this.#held = [];
    this.#heldBytes = 0;
  }

  #send(response: Uint8Array): void {
    if (this.#isClosed) return;
    if (!this.#write(response)) this.#isBlocked = true;
  }

  #hold(recipient: Recipient, bodies: readonly ResponseBody[]): boolean {
    if (this.#heldBytes >= this.#maxHeldBytes) return false;
    const last = this.#held.at(-1);
    if (last?.bodies === bodies) {
      last.recipients.push(recipient);
      this.#heldBytes += recipientCost;
    } else {
      this.#keep({ bodies, recipients: [recipient], recipient: 0, body: 0 });
    }
    return true;
  }

  #keep(held: Held): void {
    if (this.#isClosed) return;
    this.#held.push(held);
    this.#heldBytes += heldSize(held);
  }

  /** Writes what it can; true when nothing of it is left. */
  #release(held: Held): boolean {
    for (; held.recipient < held.recipients.length; held.recipient++, held.body = 0) {
      const recipient = held.recipients[held.recipient]!;
      for (; held.body < held.bodies.length && !recipient.isClosed; held.body++) {
        if (this.#isBlocked) return false;
        this.#send(joinResponse(held.bodies[held.body]!, recipient.idField));
      }
    }
    this.#heldBytes -= heldSize(held);
    return true;
  }
}

function heldSize(held: Held): number {
  return held.bodies.reduce((size, body) => size + bodySize(body), held.recipients.length * recipientCost);
}
