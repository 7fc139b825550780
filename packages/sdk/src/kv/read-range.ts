import { type Init, KV, type RangeRequest, type RangeResponse } from '@conclave/protocol';
import type { Engine } from '../connection/engine.ts';
import type { Procedure, RequestOptions } from '../connection/procedure.ts';
import { headerRevision } from './result.ts';

/** A range as the server answers it, for what is built on several reads and keeps to one revision in all of them. */
export function readRange(engine: Engine, request: Init<RangeRequest>, options: RequestOptions | undefined): Promise<RangeResponse> {
  return new Promise((resolve, reject) => {
    engine.start(rangeProcedure, request, undefined, options, resolve, reject);
  });
}

const { path, input, output } = KV.methods.range;

const rangeProcedure: Procedure<Init<RangeRequest>, RangeResponse, undefined, RangeResponse> = {
  path,
  input,
  output,
  isRepeatable: true,
  revision: headerRevision,
  result: (response) => response,
};
