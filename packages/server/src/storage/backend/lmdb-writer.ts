import type { Database, RootDatabaseOptions } from 'lmdb';

/**
 * The thread that writes to LMDB. It gets a commit as packed rows in one or more chunks and answers when the transaction is durable.
 *
 * A thread of its own because lmdb-js otherwise encodes every row on the thread that serves requests (measured: 1.7–3 µs a row against 0.7 for
 * packing), cannot spread one transaction over several turns of the event loop, and would wait for the disk in libuv's pool.
 *
 * A chunk is a run of rows, little endian:
 *
 *     table (1) · flags (1) · length of the stored key (2) · length of what is stored (4) · stored key · stored
 *
 * where `stored` begins with 4 bytes left free for its checksum and, for a long key, goes on with the whole key (see `long-keys.ts`).
 */
export interface WriterData {
  /** Where to resolve the package `lmdb` from: a file URL. */
  readonly requireFrom: string;
  readonly path: string;
  readonly root: RootDatabaseOptions;
  readonly table: { readonly keyEncoding: 'binary'; readonly encoding: 'binary' };
  readonly tables: readonly string[];
}

export type WriterRequest =
  /** Before the chunks of a commit: it empties all tables but `local` first. */
  | { readonly kind: 'clear' }
  | { readonly kind: 'chunk'; readonly chunk: ArrayBuffer; readonly isLast: boolean }
  | { readonly kind: 'close' };

export type WriterReply = { readonly error: undefined } | { readonly error: string };

export const rowHeaderBytes = 8;
export const checksumBytes = 4;
export const deleteFlag = 1;
export const longFlag = 2;

// The program below repeats these four numbers, as it may refer to nothing outside itself.

/**
 * The thread's program. It travels as its own source text (`Worker` with `eval`), so that it runs alike from TypeScript sources, from the build and
 * out of a bundle, with no file to be found at run time. Hence: it may refer to nothing outside itself but types, and no function in it has a name
 * (some compilers wrap named ones in a helper that is not there).
 */
export function writerProgram(): void {
  const { parentPort, workerData } = process.getBuiltinModule('node:worker_threads');
  const { crc32 } = process.getBuiltinModule('node:zlib');
  const data: WriterData = workerData;
  const lmdb: typeof import('lmdb') = process.getBuiltinModule('node:module').createRequire(data.requireFrom)('lmdb');
  const root = lmdb.open(data.path, data.root);
  const stores = data.tables.map((name): Database<Buffer, Buffer> => root.openDB({ name, ...data.table }));
  let chunks: ArrayBuffer[] = [];
  let isReplacement = false;

  const rows = {
    /** The slot that holds the long key of `stored`, or the first free one. */
    slotOf(store: Database<Buffer, Buffer>, filed: Buffer, stored: Buffer): { readonly slot: number; readonly isHeld: boolean } {
      const keyEnd = 8 + stored.readUInt32LE(4);
      const last = filed.length - 1;
      const end = Buffer.from(filed);
      end[last] = 0xff;
      let free = 0;
      for (const { key, value } of store.getRange({ start: filed, end, inclusiveEnd: true })) {
        if (value.length >= keyEnd && value.compare(stored, 4, keyEnd, 4, keyEnd) === 0) return { slot: key[last]!, isHeld: true };
        if (key[last] === free) free++;
      }
      if (free > 0xff) throw new Error('more than 256 long keys share a digest');
      return { slot: free, isHeld: false };
    },

    write(store: Database<Buffer, Buffer>, flags: number, key: Buffer, stored: Buffer): void {
      if (flags & 2) {
        const { slot, isHeld } = rows.slotOf(store, key, stored);
        if (flags & 1 && !isHeld) return;
        key[key.length - 1] = slot;
      }
      if (flags & 1) {
        store.removeSync(key);
        return;
      }
      stored.writeUInt32LE(crc32(stored.subarray(4)), 0);
      store.putSync(key, stored);
    },

    writeAll(chunk: ArrayBuffer): void {
      const bytes = Buffer.from(chunk);
      for (let at = 0; at < bytes.length; ) {
        const store = stores[bytes[at]!]!;
        const flags = bytes[at + 1]!;
        const stored = at + 8 + bytes.readUInt16LE(at + 2);
        const end = stored + bytes.readUInt32LE(at + 4);
        rows.write(store, flags, bytes.subarray(at + 8, stored), bytes.subarray(stored, end));
        at = end;
      }
    },
  };

  parentPort!.on('message', (request: WriterRequest) => {
    if (request.kind === 'close') {
      root.close().then(
        () => parentPort!.close(),
        (error: unknown) => {
          throw error;
        },
      );
      return;
    }
    if (request.kind === 'clear') {
      isReplacement = true;
      return;
    }
    chunks.push(request.chunk);
    if (!request.isLast) return;
    let reply: WriterReply = { error: undefined };
    try {
      root.transactionSync(() => {
        if (isReplacement) for (const at of data.tables.keys()) if (data.tables[at] !== 'local') stores[at]!.clearSync();
        chunks.forEach(rows.writeAll);
      });
    } catch (error) {
      reply = { error: String(error) };
    }
    chunks = [];
    isReplacement = false;
    parentPort!.postMessage(reply);
  });
}
