import {
  type CompactionRequest,
  type CompactionResponse,
  type DeleteRangeRequest,
  type DeleteRangeResponse,
  type Init,
  KV,
  type PutRequest,
  type PutResponse,
  type RangeRequest,
  type RangeResponse,
} from '@conclave/protocol';
import type { Engine } from '../connection/engine.ts';
import type { Procedure, RequestOptions } from '../connection/procedure.ts';
import type { KeyPrefix, Target } from './key-range.ts';
import type { KeyValue } from './key-value.ts';
import {
  type DeleteOptions,
  type GetOptions,
  type ListOptions,
  type PutOptions,
  toDeleteRequest,
  toGetRequest,
  toListRequest,
  toPutRequest,
} from './operation.ts';
import {
  type DeleteResult,
  headerRevision,
  type ListResult,
  type PutResult,
  toDeleteResult,
  toGetResult,
  toListResult,
  toPutResult,
} from './result.ts';
import { type Integer, type Key, toCounter, type Value } from './text.ts';

/** The single requests on keys, for one namespace. */
export class KvClient {
  readonly #engine: Engine;
  readonly #prefix: KeyPrefix;

  constructor(engine: Engine, prefix: KeyPrefix) {
    this.#engine = engine;
    this.#prefix = prefix;
  }

  put(key: Key, value: Value, options: (PutOptions & RequestOptions) | undefined): Promise<PutResult> {
    // The promise is made here and nowhere else on a call's way; what the executor throws rejects it.
    return new Promise((resolve, reject) => {
      this.#engine.start(putProcedure, toPutRequest(this.#prefix, key, value, options), this.#prefix, options, resolve, reject);
    });
  }

  get(key: Key, options: (GetOptions & RequestOptions) | undefined): Promise<KeyValue | undefined> {
    return new Promise((resolve, reject) => {
      this.#engine.start(getProcedure, toGetRequest(this.#prefix, key, options), this.#prefix, options, resolve, reject);
    });
  }

  list(target: Target, options: (ListOptions & RequestOptions) | undefined): Promise<ListResult> {
    return new Promise((resolve, reject) => {
      this.#engine.start(listProcedure, toListRequest(this.#prefix, target, options), this.#prefix, options, resolve, reject);
    });
  }

  delete(target: Target, options: (DeleteOptions & RequestOptions) | undefined): Promise<DeleteResult> {
    return new Promise((resolve, reject) => {
      this.#engine.start(deleteProcedure, toDeleteRequest(this.#prefix, target, options), this.#prefix, options, resolve, reject);
    });
  }

  compact(revision: Integer, options: (CompactOptions & RequestOptions) | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const request = { revision: toCounter(revision, 'revision'), physical: options?.physical };
      this.#engine.start(compactProcedure, request, undefined, options, resolve, reject);
    });
  }
}

export interface CompactOptions {
  /** Answer only when the old revisions are gone from storage. Default: false. */
  readonly physical?: boolean | undefined;
}

const { range, put, deleteRange, compact } = KV.methods;

const putProcedure: Procedure<Init<PutRequest>, PutResponse, KeyPrefix, PutResult> = {
  path: put.path,
  input: put.input,
  output: put.output,
  isRepeatable: false,
  revision: headerRevision,
  result: toPutResult,
};

const getProcedure: Procedure<Init<RangeRequest>, RangeResponse, KeyPrefix, KeyValue | undefined> = {
  path: range.path,
  input: range.input,
  output: range.output,
  isRepeatable: true,
  revision: headerRevision,
  result: toGetResult,
};

const listProcedure: Procedure<Init<RangeRequest>, RangeResponse, KeyPrefix, ListResult> = {
  path: range.path,
  input: range.input,
  output: range.output,
  isRepeatable: true,
  revision: headerRevision,
  result: toListResult,
};

const deleteProcedure: Procedure<Init<DeleteRangeRequest>, DeleteRangeResponse, KeyPrefix, DeleteResult> = {
  path: deleteRange.path,
  input: deleteRange.input,
  output: deleteRange.output,
  isRepeatable: false,
  revision: headerRevision,
  result: toDeleteResult,
};

const compactProcedure: Procedure<Init<CompactionRequest>, CompactionResponse, undefined, void> = {
  path: compact.path,
  input: compact.input,
  output: compact.output,
  isRepeatable: false,
  result: () => undefined,
};
