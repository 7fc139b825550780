import { type Init, KV, type TxnRequest, type TxnResponse } from '@conclave/protocol';
import type { Engine } from '../connection/engine.ts';
import type { Procedure, RequestOptions } from '../connection/procedure.ts';
import { headerRevision } from './result.ts';

/** A transaction as the server answers it, sent once if it writes, for what is built on transactions. */
export function sendTxn(
  engine: Engine,
  request: Init<TxnRequest>,
  kind: 'reads' | 'writes',
  options: RequestOptions,
): Promise<TxnResponse> {
  return new Promise((resolve, reject) => {
    engine.start(kind === 'reads' ? reading : writing, request, undefined, options, resolve, reject);
  });
}

const { path, input, output } = KV.methods.txn;

const writing: Procedure<Init<TxnRequest>, TxnResponse, undefined, TxnResponse> = {
  path,
  input,
  output,
  isRepeatable: false,
  revision: headerRevision,
  result: (response) => response,
};

const reading: typeof writing = { ...writing, isRepeatable: true };
