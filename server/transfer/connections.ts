import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';

/**
 * Keeps places free for connections that are still to come, probes among them: while fewer than `roomFor` are left, the
 * connection that has waited longest without a request under way goes. `isFull` says that none was to be had so.
 */
export function keepRoom(
  server: Server,
  { connectionsMax, roomFor }: { connectionsMax: number; roomFor: number },
): { isFull(): boolean } {
  server.maxConnections = connectionsMax;
  /** Requests under way by connection. */
  const connections = new Map<Socket, number>();
  /** Those without any, the one that began to wait first in front. */
  const waiting = new Set<Socket>();

  /** Under TLS requests come by another socket than the one that connected, which is all there is before the handshake. */
  const below = new WeakMap<Socket, Socket>();

  const isFull = () => connections.size > connectionsMax - roomFor;
  const forget = (socket: Socket) => {
    connections.delete(socket);
    waiting.delete(socket);
  };
  server.on('connection', (socket: Socket) => {
    const [longest] = waiting;
    connections.set(socket, 0);
    waiting.add(socket);
    socket.once('close', () => forget(socket));
    if (!isFull() || longest === undefined) return;
    forget(longest);
    longest.destroy();
  });
  server.on('secureConnection', (secure: TLSSocket) => {
    const connected = [...connections.keys()].find((socket) => areSame(socket, secure));
    if (connected !== undefined) below.set(secure, connected);
  });
  // Before the app's own listener, which may answer at once.
  server.prependListener('request', (request: IncomingMessage, response: ServerResponse) => {
    const socket = below.get(request.socket) ?? request.socket;
    count(socket, 1);
    response.once('close', () => count(socket, -1));
  });
  const count = (socket: Socket, more: number) => {
    const requests = connections.get(socket);
    if (requests === undefined) return;
    connections.set(socket, requests + more);
    if (requests + more === 0) waiting.add(socket);
    else waiting.delete(socket);
  };
  return { isFull };
}

function areSame(a: Socket, b: Socket): boolean {
  return a.remotePort === b.remotePort && a.remoteAddress === b.remoteAddress;
}
