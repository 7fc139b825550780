import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import type { SrvRecord } from '@conclave/sdk';

const srv = 33;
const nameError = 3;

/** A DNS server on a port of 127.0.0.1 that knows the SRV records of some names, and of others that they do not exist. */
export class DnsServer implements AsyncDisposable {
  /** By name. May be changed. */
  readonly records = new Map<string, readonly SrvRecord[]>();
  readonly #socket: Socket;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('message', (question, { port, address }) => socket.send(this.#answer(question), port, address));
  }

  static async listen(): Promise<DnsServer> {
    const socket = createSocket('udp4');
    socket.bind(0, '127.0.0.1');
    await once(socket, 'listening');
    return new DnsServer(socket);
  }

  /** As `Resolver.setServers` of `node:dns` takes it. */
  get address(): string {
    return `127.0.0.1:${this.#socket.address().port}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#socket, 'close');
    this.#socket.close();
    await closed;
  }

  /** The question again, and after it what is known. */
  #answer(message: Buffer): Buffer {
    const { name, end } = readName(message, 12);
    const question = message.subarray(12, end + 4);
    const records = message.readUInt16BE(end) === srv ? this.records.get(name.toLowerCase()) : [];
    const header = Buffer.alloc(12);
    header.writeUInt16BE(message.readUInt16BE(0), 0);
    // A response, from who has authority, to who wanted recursion.
    header.writeUInt16BE(0x8580 | (records === undefined ? nameError : 0), 2);
    header.writeUInt16BE(1, 4);
    header.writeUInt16BE(records?.length ?? 0, 6);
    return Buffer.concat([header, question, ...(records ?? []).map(encode)]);
  }
}

function readName(message: Buffer, from: number): { readonly name: string; readonly end: number } {
  const labels: string[] = [];
  let at = from;
  for (let length = message.readUInt8(at); length > 0; length = message.readUInt8(at)) {
    labels.push(message.toString('latin1', at + 1, at + 1 + length));
    at += 1 + length;
  }
  return { name: labels.join('.'), end: at + 1 };
}

function encode({ name, port, priority, weight }: SrvRecord): Buffer {
  const target = Buffer.concat([...name.split('.').map((label) => Buffer.from([label.length, ...Buffer.from(label)])), Buffer.from([0])]);
  const record = Buffer.alloc(18);
  // The name is that of the question; the class is that of the internet; for as long as the answer may be kept there is no time.
  record.writeUInt16BE(0xc00c, 0);
  record.writeUInt16BE(srv, 2);
  record.writeUInt16BE(1, 4);
  record.writeUInt16BE(6 + target.length, 10);
  record.writeUInt16BE(priority, 12);
  record.writeUInt16BE(weight, 14);
  record.writeUInt16BE(port, 16);
  return Buffer.concat([record, target]);
}
