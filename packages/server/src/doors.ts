import type { Loopback, LoopbackServer, Routes } from '@conclave/wire';
import { type GrpcServer, grpcServer } from '@conclave/wire/grpc-server';
import { HttpDoor } from './api/http.ts';
import { Listener } from './api/listener.ts';
import type { ServedMember } from './api/member.ts';
import { createRoutes } from './api/routes.ts';
import { grpcOverheadBytes, type MemberSettings } from './limits.ts';

const stopReason = 'etcdserver: server stopped';

/** The ways in for clients: sockets, and the in-process network. */
export interface Doors {
  readonly listener: Listener | undefined;
  close(graceMs: number): Promise<void>;
  /** At once, with no answer to anybody. */
  destroy(): void;
}

export async function openDoors(
  member: ServedMember,
  network: Loopback,
  name: string,
  urls: Parameters<typeof Listener.open>[0]['urls'],
  settings: MemberSettings,
): Promise<Doors> {
  const routes = createRoutes(member);
  const sockets = urls.length === 0 ? undefined : await openSocketDoors(member, routes, urls, settings);
  const inProcess: LoopbackServer = network.serve(name, routes);
  return {
    listener: sockets?.listener,
    async close(graceMs) {
      const loopbackClosed = inProcess.close(graceMs, stopReason);
      await sockets?.close(graceMs);
      await loopbackClosed;
    },
    destroy() {
      sockets?.destroy();
      inProcess.cut();
      void inProcess.close(0, stopReason);
    },
  };
}

async function openSocketDoors(
  member: ServedMember,
  routes: Routes,
  urls: Parameters<typeof Listener.open>[0]['urls'],
  settings: MemberSettings,
): Promise<Omit<Doors, 'listener'> & { readonly listener: Listener }> {
  const { runtime } = member;
  const http2: GrpcServer = grpcServer({ runtime, routes, maxReceiveBytes: settings.maxRequestBytes + grpcOverheadBytes });
  const http1 = new HttpDoor(member);
  const listener = await Listener.open({ runtime, urls, http2, http1 });
  return {
    listener,
    async close(graceMs) {
      const closed = listener.close();
      await http2.close(graceMs, stopReason);
      http1.close();
      await closed;
    },
    destroy() {
      http2.destroy();
      http1.close();
      void listener.close();
    },
  };
}
