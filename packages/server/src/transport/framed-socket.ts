import type { Socket } from 'node:net';
import { BinaryWriter, PeerFormatError } from './binary.ts';
import { FrameReader, frameParts, pulse } from './frame.ts';

/** Time between two beats, see {@link FramedSocket.beat}. Milliseconds. */
export const beatMs = 500;
/** Beats without a byte from the other side after which it is taken for gone. */
const silentBeatsMax = 4;

export interface FramedSocketOptions {
  readonly socket: Socket;
  /** Longer frames end the connection. */
  readonly frameBytesMax: number;
  /** Every frame but pulses. A PeerFormatError thrown here ends the connection. */
  readonly onFrame: (body: Uint8Array) => void;
  /** The connection is gone: broken, ended by the other side, or cut. Called once, and nothing after it. */
  readonly onEnd: (reason: string) => void;
}

/** A socket that carries frames. No error of the socket, and nothing the other side sends, gets past it. */
export class FramedSocket {
  readonly socket: Socket;
  readonly #options: FramedSocketOptions;
  readonly #reader: FrameReader;
  readonly #writer = new BinaryWriter();
  #hasEnded = false;
  #silentBeats = 0;

  constructor(options: FramedSocketOptions) {
    this.#options = options;
    this.socket = options.socket;
    this.#reader = new FrameReader(options.frameBytesMax, (body) => {
      if (!this.#hasEnded && body.length > 0) options.onFrame(body);
    });
    // For as long as the socket lives: an error without a listener would end the process.
    this.socket.on('error', (error) => this.cut(error.message));
    this.socket.on('close', () => this.cut('the other side closed the connection'));
    this.socket.on('data', (chunk) => this.#read(chunk));
  }

  /** From the next frame on. */
  set frameBytesMax(value: number) {
    this.#reader.maxBytes = value;
  }

  /** The bytes of a frame, not written yet. */
  frame(writeBody: (writer: BinaryWriter) => void): Uint8Array[] {
    return frameParts(this.#writer, writeBody);
  }

  write(writeBody: (writer: BinaryWriter) => void): void {
    for (const part of this.frame(writeBody)) this.socket.write(part);
  }

  writePulse(): void {
    this.socket.write(pulse);
  }

  /**
   * Called every {@link beatMs}; false when the other side has been silent for too long, and the connection is cut. Beats are counted, not time: a
   * process that stood still itself first reads what came meanwhile, and does not take everybody else for dead.
   */
  beat(): boolean {
    this.#silentBeats += 1;
    if (this.#silentBeats > silentBeatsMax) this.cut('the other side is silent');
    return !this.#hasEnded;
  }

  /** Something came since the last beat. */
  get isHeard(): boolean {
    return this.#silentBeats === 0;
  }

  /** Ends it at once. */
  cut(reason: string): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.socket.destroy();
    this.#options.onEnd(reason);
  }

  /** Ends it at once, and `onEnd` is not called. */
  abandon(): void {
    this.#hasEnded = true;
    this.socket.destroy();
  }

  #read(chunk: Buffer): void {
    if (this.#hasEnded) return;
    this.#silentBeats = 0;
    try {
      this.#reader.feed(chunk);
    } catch (error) {
      if (!(error instanceof PeerFormatError)) throw error;
      this.cut(error.message);
    }
  }
}
