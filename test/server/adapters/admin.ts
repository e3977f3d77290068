import type { AddressInfo } from 'node:net';
import { connect } from 'node:net';
import type { FastifyInstance } from 'fastify';
import pino from 'pino';
import { afterEach } from 'vitest';
import { buildAdminApp } from '../../../server/admin/admin-app.ts';
import { goodAdapter } from '../../support/adapter-files.ts';
import { type Bench, bench } from './bench.ts';

export const TOKEN = 'a-token-for-tests-only';

export interface Reply {
  status: number;
  headers: Headers;
  // biome-ignore lint/suspicious/noExplicitAny: tests read into JSON of many shapes.
  body: any;
}

interface CallInit {
  headers?: Record<string, string>;
  body?: string | Buffer | AsyncIterable<Uint8Array>;
  duplex?: 'half';
}

/** The admin API on a free port of this machine, over a fake engine. */
export interface AdminBench extends Bench {
  app: FastifyInstance;
  url: string;
  port: number;
  call(method: string, path: string, init?: CallInit): Promise<Reply>;
  /** Sends bytes as they are and returns what comes back until the peer closes or `until` is seen. */
  raw(request: string | Buffer, until?: RegExp): Promise<string>;
}

async function adminBench(options: Parameters<typeof bench>[0] = {}): Promise<AdminBench> {
  const made = bench(options);
  const app = buildAdminApp({ registry: made.registry, token: () => TOKEN, log: pino({ level: 'silent' }) });
  await app.listen({ host: '127.0.0.1', port: 0 });
  const { port } = app.server.address() as AddressInfo;
  const url = `http://127.0.0.1:${port}`;
  return {
    ...made,
    app,
    url,
    port,
    call: async (method, path, init = {}) => {
      const headers = { authorization: `Bearer ${TOKEN}`, ...init.headers };
      const response = await fetch(url + path, { ...init, method, headers } as RequestInit);
      const text = await response.text();
      const isJson = response.headers.get('content-type')?.startsWith('application/json');
      return { status: response.status, headers: response.headers, body: isJson ? JSON.parse(text) : text };
    },
    raw: (request, until) => exchange(port, request, until),
  };
}

/** Makes admin benches for the tests of a file, and closes them after each. */
export function useAdmin(): typeof adminBench {
  const open: AdminBench[] = [];
  afterEach(async () => {
    for (const { app } of open.splice(0)) {
      app.server.closeAllConnections();
      await app.close();
    }
  });
  return async (options) => {
    const made = await adminBench(options);
    open.push(made);
    return made;
  };
}

/** Headers and body of a tensor upload. */
export function upload(seed = 1, headers: Record<string, string> = {}) {
  const { tensors, config } = goodAdapter(seed);
  return {
    body: tensors,
    headers: {
      'content-type': 'application/octet-stream',
      'x-lora-config': config.toString('base64url'),
      ...headers,
    },
  };
}

function exchange(port: number, request: string | Buffer, until?: RegExp): Promise<string> {
  const done = Promise.withResolvers<string>();
  const socket = connect(port, '127.0.0.1', () => socket.write(request));
  let text = '';
  socket.setEncoding('latin1');
  socket.on('data', (chunk: string) => {
    text += chunk;
    if (until?.test(text)) socket.destroy();
  });
  socket.on('error', done.reject);
  socket.on('close', () => done.resolve(text));
  return done.promise;
}
