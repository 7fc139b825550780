import { Health, HealthCheckResponse_ServingStatus, StatusCode } from '@conclave/protocol';
import { StatusError } from '@conclave/wire';
import type { LeaderGuard } from './leader-guard.ts';
import { type ServiceRoutes, streaming, unary } from './route.ts';

// The one service the protocol knows here: the server as a whole.
const wholeServer = '';

/** `grpc.health.v1.Health`: a server that answers is serving. A watch is told so and stays open; it ends with the server. */
export function healthRoutes(guard: LeaderGuard): ServiceRoutes<typeof Health> {
  return {
    check: unary(Health.methods.check, guard, ({ service }) => {
      if (service !== wholeServer) throw new StatusError(StatusCode.NOT_FOUND, 'unknown service');
      return { status: HealthCheckResponse_ServingStatus.SERVING };
    }),
    watch: streaming(Health.methods.watch, guard, (stream) => {
      stream.onMessage(({ service }) => {
        const { SERVING, SERVICE_UNKNOWN } = HealthCheckResponse_ServingStatus;
        stream.write({ status: service === wholeServer ? SERVING : SERVICE_UNKNOWN });
      });
    }),
  };
}
