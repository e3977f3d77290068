import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';

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
  // Before the app's own listener, which may answer at once.
  server.prependListener('request', ({ socket }: IncomingMessage, response: ServerResponse) => {
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
