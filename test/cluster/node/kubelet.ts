import { createHash } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { createServer } from 'node:https';
import { connect, type Socket } from 'node:net';
import { TestCa } from '../../support/certificates.ts';
import { FrameReader, frame, OPCODE } from './websocket.ts';

const PROTOCOL = 'v4.channel.k8s.io';
const ACCEPT_SALT = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
const DATA = 0;
const ERROR = 1;

/** Null: no such pod here. */
export type AddressOf = (namespace: string, pod: string) => string | null;

export interface Kubelet {
  /** False where somebody has the port. */
  listen(port: number, address: string): Promise<boolean>;
  stop(): Promise<void>;
}

/** The part of a kubelet that `port-forward` needs, over WebSocket, as the API server passes it on. */
export function createKubelet(addressOf: AddressOf): Kubelet {
  const ca = new TestCa('stand-in-kubelet');
  const { cert, key } = ca.issue('DNS:stand-in');
  ca.remove();
  const server = createServer({ cert, key }, (_request, response) => response.writeHead(404).end());
  const sockets = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  server.on('upgrade', (request: IncomingMessage, socket: Socket) => {
    socket.on('error', () => socket.destroy());
    const { pathname, searchParams } = new URL(request.url ?? '/', 'https://kubelet');
    const [, namespace, pod] = /^\/portForward\/([^/]+)\/([^/]+)$/.exec(pathname) ?? [];
    const port = Number(searchParams.get('port'));
    const host = namespace === undefined || pod === undefined ? null : addressOf(namespace, pod);
    if (host === null) {
      socket.end('HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n');
      return;
    }
    accept(request, socket);
    forward(socket, { host, port });
  });
  return {
    listen: (port, address) =>
      new Promise((resolve) => {
        server.once('error', () => resolve(false));
        server.listen(port, address, () => resolve(true));
      }),
    stop: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function accept(request: IncomingMessage, socket: Socket): void {
  const key = request.headers['sec-websocket-key'];
  const lines = [
    'HTTP/1.1 101 Switching Protocols',
    'upgrade: websocket',
    'connection: Upgrade',
    `sec-websocket-accept: ${createHash('sha1').update(`${key}${ACCEPT_SALT}`).digest('base64')}`,
    `sec-websocket-protocol: ${PROTOCOL}`,
  ];
  socket.write(`${lines.join('\r\n')}\r\n\r\n`);
}

/** Each channel begins with the number of the port; what cannot be had is said on the second one. */
function forward(socket: Socket, { host, port }: { host: string; port: number }): void {
  const number = Buffer.alloc(2);
  number.writeUInt16LE(port);
  const say = (channel: number, data: Buffer) =>
    socket.write(frame(OPCODE.binary, Buffer.concat([Buffer.of(channel), data])));
  say(DATA, number);
  say(ERROR, number);
  const pod = connect({ host, port });
  pod.on('data', (data) => {
    if (!say(DATA, data)) {
      pod.pause();
      socket.once('drain', () => pod.resume());
    }
  });
  pod.on('error', (error) => say(ERROR, Buffer.from(`an error occurred forwarding: ${error.message}`)));
  pod.on('close', () => {
    socket.resume();
    socket.end(frame(OPCODE.close, Buffer.alloc(0)));
  });
  socket.on('close', () => pod.destroy());
  const reader = new FrameReader((opcode, message) => {
    if (opcode === OPCODE.close) return void socket.end(frame(OPCODE.close, Buffer.alloc(0)));
    if (message[0] === DATA && !pod.write(message.subarray(1))) {
      socket.pause();
      pod.once('drain', () => socket.resume());
    }
  });
  socket.on('data', (data) => reader.take(data));
}
