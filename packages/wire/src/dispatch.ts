import type { Routes, ServerStream, UnaryRoute } from './call.ts';

const UNKNOWN = 2;
const UNIMPLEMENTED = 12;

/**
 * Hands a call that has just arrived to its handler. What every host of {@link Routes} does, whatever carries its calls: a unary handler
 * gets the first message, at once; a missing path is answered in gRPC's words; a handler that throws is answered with UNKNOWN.
 */
export function dispatch(routes: Routes, stream: ServerStream): void {
  const route = routes.get(stream.path);
  try {
    if (route === undefined) stream.end(UNIMPLEMENTED, unimplementedText(routes, stream.path));
    else if (route.kind === 'stream') route.handle(stream);
    else handleUnary(route.handle, stream);
  } catch (error) {
    stream.end(UNKNOWN, textOf(error));
  }
}

function handleUnary(handle: UnaryRoute, stream: ServerStream): void {
  let arrived = false;
  let replied = false;
  stream.onMessage((request) => {
    if (arrived) return;
    arrived = true;
    stream.pause();
    const reply = {
      send(response: Uint8Array): void {
        if (replied) return;
        replied = true;
        stream.write(response);
        stream.end(0, '');
      },
      fail(code: number, message: string): void {
        replied = true;
        stream.end(code, message);
      },
    };
    try {
      handle(request, stream, reply);
    } catch (error) {
      reply.fail(UNKNOWN, textOf(error));
    }
  });
  stream.onHalfClose(() => {
    if (!arrived) stream.end(UNKNOWN, 'EOF');
  });
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The texts of gRPC's own answers to calls nobody serves, as clients know them. */
function unimplementedText(routes: Routes, path: string): string {
  const slash = path.lastIndexOf('/');
  if (slash < 1) return `malformed method name: ${JSON.stringify(path)}`;
  const service = path.slice(1, slash);
  for (const known of routes.keys()) {
    if (known.startsWith(`/${service}/`)) return `unknown method ${path.slice(slash + 1)} for service ${service}`;
  }
  return `unknown service ${service}`;
}
