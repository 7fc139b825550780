import type { RunningProcess } from '@conclave/testkit';
import { systemRuntime } from '@conclave/wire';
import { grpcTransport } from '@conclave/wire/grpc-client';
import type { StartedTarget } from '../target.ts';

const transport = grpcTransport({ runtime: systemRuntime() });

export function startedProcess(running: RunningProcess): StartedTarget {
  return {
    address: running.address,
    connect: () => transport(running.address),
    [Symbol.asyncDispose]: () => running[Symbol.asyncDispose](),
  };
}
