import type { Runtime } from '@conclave/wire';
import type { RequestOptions } from './connection/procedure.ts';
import type { Target } from './kv/key-range.ts';
import type { KeyValue } from './kv/key-value.ts';
import type { GetOptions } from './kv/operation.ts';
import type { Key } from './kv/text.ts';
import type { Txn } from './kv/txn.ts';
import type { Feed, FeedSink, FeedSource } from './rx/feed.ts';
import type { WatchEmission, WatchOptions } from './watch/watch-options.ts';

/** What sessions and consumers are built on: the verbs of the namespace they were made by, which has these and more. */
export interface Verbs {
  readonly runtime: Runtime;
  get(key: Key, options?: GetOptions & RequestOptions): Promise<KeyValue | undefined>;
  txn(): Txn<readonly [], readonly []>;
  watch<const Options extends WatchOptions>(target: Target, options: Options): Feed<WatchEmission<Options>>;
  feed<T>(open: (sink: FeedSink<T>) => FeedSource): Feed<T>;
}
