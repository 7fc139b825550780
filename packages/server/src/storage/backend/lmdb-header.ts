import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { StateCorruptionError } from './state-corruption-error.ts';

/**
 * Looks at the two header pages of an LMDB file before LMDB does: given a file that is none, or one cut short, the engine ends the process instead
 * of throwing. An absent or empty file passes: it becomes a new store.
 *
 * Knows of the format (data version 2) only the header: where the marks, the page size, the roots and the last page stand.
 *
 * @throws StateCorruptionError 'state-corrupt'.
 */
export function checkLmdbHeader(file: string): void {
  const handle = openForReading(file);
  if (handle === undefined) return;
  try {
    const { size } = fstatSync(handle);
    if (size === 0) return;
    const first = readHeader(file, handle, 0);
    const { pageBytes } = first;
    if (pageBytes < pageBytesMin || pageBytes > pageBytesMax || (pageBytes & (pageBytes - 1)) !== 0) {
      throw new StateCorruptionError(`${file}: the header at offset 0 names pages of ${pageBytes} bytes`);
    }
    const second = readHeader(file, handle, pageBytes);
    checkLength(file, size, second.transaction > first.transaction ? second : first);
  } finally {
    closeSync(handle);
  }
}

interface Header {
  readonly pageBytes: number;
  readonly roots: readonly bigint[];
  readonly lastPage: bigint;
  readonly transaction: bigint;
}

const headerBytes = 160;
const metaPageFlag = 0x08;
const magic = 0xbeefc0de;
const dataVersion = 2;
const pageBytesMin = 512;
const pageBytesMax = 65_536;
const noPage = 0xffff_ffff_ffff_ffffn;

/**
 * Pages that a transaction took from the end of the file and freed again are never written: a sound file may end that much before its last page.
 * A commit writes every key once, so only pages of the tree can be among them, and few.
 */
const unwrittenTailBytesMax = 1 << 20;

function readHeader(file: string, handle: number, offset: number): Header {
  const bytes = Buffer.alloc(headerBytes);
  const isWhole = readSync(handle, bytes, 0, headerBytes, offset) === headerBytes;
  const isHeader = (bytes.readUInt16LE(18) & metaPageFlag) !== 0 && bytes.readUInt32LE(24) === magic;
  if (!isWhole || !isHeader || (bytes.readUInt32LE(28) & 0xffff) !== dataVersion) {
    throw new StateCorruptionError(`${file}: there is no header at offset ${offset}`);
  }
  return {
    pageBytes: bytes.readUInt32LE(48),
    roots: [bytes.readBigUInt64LE(88), bytes.readBigUInt64LE(136)],
    lastPage: bytes.readBigUInt64LE(144),
    transaction: bytes.readBigUInt64LE(152),
  };
}

function checkLength(file: string, size: number, { pageBytes, roots, lastPage }: Header): void {
  const end = Number(lastPage + 1n) * pageBytes;
  if (end - size > unwrittenTailBytesMax) throw new StateCorruptionError(`${file}: ${size} bytes long, though its pages end at ${end}`);
  for (const root of roots) {
    if (root !== noPage && Number(root + 1n) * pageBytes > size) {
      throw new StateCorruptionError(`${file}: ${size} bytes long, though a root lies in page ${root}`);
    }
  }
}

function openForReading(file: string): number | undefined {
  try {
    return openSync(file, 'r');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
}
