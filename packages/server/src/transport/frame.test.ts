import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { BinaryWriter, PeerFormatError } from './binary.ts';
import { FrameReader, frameParts, pulse } from './frame.ts';

const maxBytes = 100_000;

function frame(body: Uint8Array): Buffer {
  return Buffer.concat(frameParts(new BinaryWriter(), (writer) => writer.data(body)));
}

/** What a reader makes of the bytes when they come in pieces of the given lengths, over and over. */
function read(bytes: Buffer, pieces: readonly number[]): Buffer[] {
  const bodies: Buffer[] = [];
  const reader = new FrameReader(maxBytes, (body) => bodies.push(Buffer.from(body)));
  for (let at = 0, piece = 0; at < bytes.length; piece += 1) {
    const length = pieces[piece % pieces.length] ?? bytes.length;
    reader.feed(bytes.subarray(at, at + length));
    at += length;
  }
  return bodies;
}

const body = fc.oneof(fc.uint8Array({ maxLength: 30 }), fc.uint8Array({ minLength: 16 * 1024, maxLength: 20 * 1024, size: 'max' }));

describe('frames', () => {
  test('are put together however they were cut', () => {
    const pieces = fc.array(fc.oneof(fc.integer({ min: 1, max: 12 }), fc.integer({ min: 1, max: 30_000 })), { minLength: 1, maxLength: 5 });
    fc.assert(
      fc.property(fc.array(fc.option(body), { maxLength: 8 }), pieces, (bodies, cuts) => {
        const bytes = Buffer.concat(bodies.map((one) => (one === null ? pulse : frame(one))));
        const sent = bodies.map((one) => (one === null ? Buffer.alloc(0) : frame(one).subarray(8)));
        const seen = read(bytes, cuts);
        expect(seen.length).toBe(sent.length);
        expect(seen.every((one, at) => one.equals(sent[at] as Buffer))).toBe(true);
      }),
      { numRuns: 200 },
    );
  });

  test('with any bit flipped are never taken for others', () => {
    const bytes = Buffer.concat([frame(Buffer.from('one')), frame(Buffer.from('and two'))]);
    const intact = read(bytes, [bytes.length]);
    for (let bit = 0; bit < bytes.length * 8; bit += 1) {
      const damaged = Buffer.from(bytes);
      damaged[bit >> 3]! ^= 1 << (bit & 7);
      const seen: Buffer[] = [];
      const reader = new FrameReader(maxBytes, (one) => seen.push(Buffer.from(one)));
      try {
        reader.feed(damaged);
      } catch (error) {
        expect(error).toBeInstanceOf(PeerFormatError);
      }
      // What came before the damage, or less where the damage made a frame longer than what there is.
      expect(seen, `bit ${bit}`).toEqual(intact.slice(0, seen.length));
      expect(seen.length, `bit ${bit}`).toBeLessThan(intact.length);
    }
  });

  test('longer than allowed are refused before room is made for them', () => {
    const head = Buffer.alloc(8);
    head.writeUInt32LE(maxBytes + 1);
    expect(() => read(head, [8])).toThrow(`a frame of ${maxBytes + 1} bytes, at most ${maxBytes} are taken`);
  });

  test('leave nothing behind when their body could not be written', () => {
    const writer = new BinaryWriter();
    expect(() => frameParts(writer, () => writer.number(-1))).toThrow(RangeError);
    expect(Buffer.concat(frameParts(writer, () => writer.data(Buffer.from('one'))))).toEqual(frame(Buffer.from('one')));
  });

  test('share long byte strings with whoever gave them', () => {
    const long = new Uint8Array(16 * 1024).fill(7);
    expect(frameParts(new BinaryWriter(), (writer) => writer.data(long))).toContain(long);
  });
});
