export type {
  Call,
  CallContext,
  CallEnd,
  CallOptions,
  ClientStream,
  Connection,
  ConnectionState,
  Metadata,
  Route,
  Routes,
  ServerStream,
  StreamReceiver,
  StreamRoute,
  Transport,
  UnaryReply,
  UnaryRoute,
} from './call.ts';
export { type Loopback, type LoopbackOptions, type LoopbackServer, loopback } from './loopback.ts';
export { patientTimer } from './patient-timer.ts';
export { type Logger, type Runtime, silentLog, type Timer, type TimerOptions } from './runtime.ts';
export { type MessageCodec, StatusError, streamRoute, type TypedStream, type UnaryHandler, unaryRoute } from './service.ts';
export { systemRuntime } from './system-runtime.ts';
