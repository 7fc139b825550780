import type { Init, MethodDescriptor } from '@conclave/protocol';
import type { Engine } from '../connection/engine.ts';
import type { Procedure, RequestOptions } from '../connection/procedure.ts';

/** A question: asked again until it is answered or out of time. */
export function read<I, O, R>(
  method: MethodDescriptor<I, O, false, false>,
  result: (response: O) => R,
): Procedure<Init<I>, O, undefined, R> {
  return { path: method.path, input: method.input, output: method.output, isRepeatable: true, result };
}

/** A change: sent again only where it is certain that nothing came of it, and otherwise its outcome is told. */
export function change<I, O, R>(
  method: MethodDescriptor<I, O, false, false>,
  result: (response: O) => R,
): Procedure<Init<I>, O, undefined, R> {
  return { path: method.path, input: method.input, output: method.output, isRepeatable: false, result };
}

/** What a change gives that says no more than that it was made. */
export function nothing(): void {}

export function request<I, O, R>(
  engine: Engine,
  procedure: Procedure<I, O, undefined, R>,
  message: I,
  options: RequestOptions | undefined,
): Promise<R> {
  return new Promise((resolve, reject) => {
    engine.start(procedure, message, undefined, options, resolve, reject);
  });
}
