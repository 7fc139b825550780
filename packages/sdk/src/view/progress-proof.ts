import { type Init, KV, Maintenance, type TxnRequest, type TxnResponse } from '@conclave/protocol';
import type { Engine } from '../connection/engine.ts';
import type { Procedure } from '../connection/procedure.ts';
import type { UnaryCall } from '../connection/unary-call.ts';
import type { WatchStream } from '../watch/watch-stream.ts';
import type { ViewPart } from './view-part.ts';

const versionTimeoutMs = 2_000;

/**
 * Whether a server's word of progress may be believed, asked of the member that gives it. Before 3.4.25 and 3.5.8 it can overtake the events
 * that it says have been told. Who does not answer is not believed.
 */
export function askWhetherOrdered(stream: WatchStream, done: (isOrdered: boolean) => void): void {
  const { path, input, output } = Maintenance.methods.status;
  stream.ask(path, input.encode({}), versionTimeoutMs, (response) => {
    done(response !== undefined && isOrdered(output.decode(response).version));
  });
}

function isOrdered(version: string): boolean {
  const [major = 0, minor = 0, patch = 0] = version.split(/[.-]/).map(Number);
  if (major !== 3) return major > 3;
  return minor > 5 || (minor === 5 && patch >= 8) || (minor === 4 && patch >= 25);
}

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
