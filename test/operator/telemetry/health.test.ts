import { type AddressInfo, connect, type Socket } from 'node:net';
import type { FastifyInstance } from 'fastify';
import { Registry } from 'prom-client';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { buildHealthApp } from '../../../operator/telemetry/health.ts';
import { eventually } from '../../support/eventually.ts';

/** Less than an idle connection may last, after which room would be made anyway. */
const PATIENCE = { timeoutMs: 8_000, everyMs: 20 };

let app: FastifyInstance;
let port: number;
beforeEach(async () => {
  app = buildHealthApp({ registry: new Registry(), notReady: () => 'the caches are not filled yet' });
  await app.listen({ host: '127.0.0.1', port: 0 });
  port = (app.server.address() as AddressInfo).port;
});
afterEach(async () => {
  app.server.closeAllConnections();
  await app.close();
});

const get = async (path: string, init: RequestInit = {}) => {
  const response = await fetch(`http://127.0.0.1:${port}${path}`, init);
  return [response.status, await response.text()];
};

it('says whether the process lives, and whether it is ready', async () => {
  expect(await get('/healthz')).toEqual([200, 'ok\n']);
  expect(await get('/readyz')).toEqual([503, 'the caches are not filled yet\n']);
  expect((await get('/metrics'))[0]).toBe(200);
});

it('takes no headers over 8 KiB and no body', async () => {
  expect((await get('/metrics', { headers: { 'x-long': 'x'.repeat(9_000) } }))[0]).toBe(431);
  expect((await get('/metrics', { method: 'POST', body: 'x'.repeat(2_000) }))[0]).toBe(413);
});

it('answers a probe beside 100 connections that say nothing', async () => {
  const silent: Socket[] = [];
  for (let count = 0; count < 100; count += 1) {
    const socket = connect(port, '127.0.0.1').on('error', () => undefined);
    silent.push(socket);
    await new Promise<void>((done) => socket.once('connect', done));
  }
  expect(await get('/healthz')).toEqual([200, 'ok\n']);
  const open = () => silent.filter(({ closed }) => !closed).length;
  await eventually('room is made', PATIENCE, () => open() <= 64 || undefined);
  for (const socket of silent) socket.destroy();
});
