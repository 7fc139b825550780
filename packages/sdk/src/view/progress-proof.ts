import { type Init, KV, type TxnRequest, type TxnResponse } from '@conclave/protocol';
import type { Engine } from '../connection/engine.ts';
import type { Procedure } from '../connection/procedure.ts';
import type { UnaryCall } from '../connection/unary-call.ts';
import type { ViewPart } from './view-part.ts';

/**
 * Finds out without the server's word of progress how far the view is: by a linearizable look at each range for keys that were written since,
 * and for as many keys as there should be. Without the ones and with the others the range is as the view has it: a write would show, and if there
 * was none, so would a deletion.
 *
 * It walks over the ranges on the server, which a word of progress does not.
 */
export function lookForChanges(
  engine: Engine,
  parts: readonly ViewPart[],
  done: (revision: number) => void,
  failed: () => void,
): UnaryCall<Init<TxnRequest>, TxnResponse, undefined, TxnResponse> {
  const asked = parts.map((part) => ({ part, through: part.through, count: part.count }));
  const success = asked.map(({ part: { range }, through }) => ({
    requestRange: { ...range, minModRevision: through + 1, limit: 1, keysOnly: true },
  }));
  return engine.start(
    lookProcedure,
    { success },
    undefined,
    undefined,
    ({ header, responses }) => {
      const revision = header?.revision ?? 0;
      for (const [at, { part, through, count }] of asked.entries()) {
        const found = responses[at]?.responseRange;
        if (found === undefined || found.kvs.length > 0 || found.count !== count) continue;
        // A key that came and went shows neither way. Told of neither the view is right; told of its coming it must be told of its going.
        if (part.through === through) part.pass(revision);
      }
      done(revision);
    },
    failed,
  );
}

const lookProcedure: Procedure<Init<TxnRequest>, TxnResponse, undefined, TxnResponse> = {
  path: KV.methods.txn.path,
  input: KV.methods.txn.input,
  output: KV.methods.txn.output,
  isRepeatable: true,
  result: (response) => response,
};
