import type { PutOptions } from './operation.ts';
import type { Key, Value } from './text.ts';

/**
 * What a software transaction is sure of, from most to least; the words are those of etcd's Go client.
 *
 * - `serializableSnapshot`: all reads are of one revision, and neither what was read nor what is written was changed by others since.
 * - `serializable`: all reads are of one revision, and what was read was not changed since. What is written without being read may have been.
 * - `repeatableReads`: what was read was not changed since it was read, but the body may see keys as of different revisions while it runs.
 * - `readCommitted`: nothing is checked: what others wrote since is overwritten.
 */
export type Isolation = 'serializableSnapshot' | 'serializable' | 'repeatableReads' | 'readCommitted';

/**
 * The store as the body of a software transaction sees it: as it was, with the body's own writes on top.
 *
 * @example
 * ```ts
 * await client.stm(async (tx) => {
 *   const draft = await tx.get('drafts/7');
 *   if (draft === undefined) return;
 *   if ((await tx.modRevision('sent/7')) > 0n) throw new Error('sent already');
 *   console.log((await tx.getBytes('drafts/7'))?.length);
 *   tx.put('sent/7', draft);
 *   tx.delete('drafts/7');
 * });
 * ```
 */
export interface StmTransaction {
  /** The value as text; undefined: there is no such key. */
  get(key: Key): Promise<string | undefined>;
  /** The value as bytes, not to be written to; undefined: there is no such key. */
  getBytes(key: Key): Promise<Uint8Array | undefined>;
  /** The revision of the last write to the key, the body's own writes aside; 0 when there is no such key. */
  modRevision(key: Key): Promise<bigint>;
  /** Writes when the body is done. Nothing is sent before. */
  put(key: Key, value: Value, options?: Pick<PutOptions, 'lease'>): void;
  /** Deletes when the body is done. */
  delete(key: Key): void;
}
