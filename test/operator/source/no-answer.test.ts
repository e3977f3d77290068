import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../../operator/kube/clock.ts';
import { AddressGuard } from '../../../operator/source/address-guard.ts';
import { openSources } from '../../../operator/source/index.ts';

let server: Server | null = null;
const sockets = new Set<Socket>();
afterEach(() => {
  for (const socket of sockets) socket.destroy();
  server?.close();
});

/** The port of a server that does this with each connection. */
async function listen(treat: (socket: Socket) => void): Promise<number> {
  server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
    treat(socket);
  });
  await new Promise<void>((resolve) => server?.listen(0, '127.0.0.1', resolve));
  return (server.address() as AddressInfo).port;
}

async function closedPort(): Promise<number> {
  const port = await listen(() => undefined);
  await new Promise((resolve) => server?.close(resolve));
  return port;
}

async function failure(endpoint: string): Promise<{ reason: string; message: string; cause: unknown }> {
  const { sources } = openSources({
    readSecret: async () => null,
    guard: new AddressGuard({ allowed: ['127.0.0.0/8'], apiServer: null }),
    clock: systemClock,
    ranges: { stallMs: 500 },
  });
  const source = { objectStore: { uri: 's3://adapters/sql/', endpoint } };
  const adapter = { metadata: { namespace: 'team-a', name: 'sql' }, spec: { source } };
  const error = await sources.objectStore
    .resolve(adapter, new AbortController().signal)
    .catch((reason: unknown) => reason);
  const { reason, message, cause } = error as { reason: string; message: string; cause: unknown };
  return { reason, message, cause };
}

describe('an endpoint where no object store is', () => {
  it.each<[string, string, () => Promise<number>, string]>([
    ['nobody listens', 'http', closedPort, 'ECONNREFUSED'],
    ['connections are reset', 'http', () => listen((socket) => socket.resetAndDestroy()), 'ECONNRESET'],
    ['connections are ended', 'http', () => listen((socket) => socket.end()), 'ECONNRESET|EPIPE'],
    [
      'something else than HTTP is spoken',
      'http',
      () => listen((socket) => socket.end('SSH-2.0-x\r\n')),
      'HPE_INVALID_CONSTANT',
    ],
    ['nothing is answered', 'http', () => listen(() => undefined), 'timeout'],
    ['no TLS is spoken', 'https', () => listen((socket) => socket.end('SSH-2.0-x\r\n')), 'EPROTO'],
  ])('looks as any other, to all but the log: %s', async (_, scheme, open, code) => {
    expect(await failure(`${scheme}://127.0.0.1:${await open()}`)).toEqual({
      reason: 'SourceUnreachable',
      message: 'The source does not answer.',
      cause: { code: expect.stringMatching(`^(${code})$`) },
    });
  });
});
