import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { type Agent, request } from 'node:https';
import { type AddressInfo, connect as connectPlain } from 'node:net';
import { text } from 'node:stream/consumers';
import { connect, type TLSSocket } from 'node:tls';
import type { FastifyInstance } from 'fastify';
import { pino } from 'pino';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { buildAdminApp } from '../../../server/admin/admin-app.ts';
import { ConfigError } from '../../../server/contract/flags.ts';
import { TlsFiles } from '../../../server/transfer/tls-files.ts';
import { type Issued, SecretVolume, TestCa } from '../../support/certificates.ts';
import { eventually } from '../../support/eventually.ts';
import { TOKEN } from './admin.ts';
import { bench } from './bench.ts';

const PATIENCE = { timeoutMs: 20_000, everyMs: 20 };
const LOOK_MS = 10;

let ca: TestCa;
let strangersCa: TestCa;
let server: Issued;
let client: Issued;
let stranger: Issued;

beforeAll(() => {
  ca = new TestCa();
  strangersCa = new TestCa();
  server = ca.issue('DNS:pods.test');
  client = ca.issue('DNS:operator.test');
  stranger = strangersCa.issue('DNS:operator.test');
});
afterAll(() => {
  ca.remove();
  strangersCa.remove();
});

let volume: SecretVolume;
let app: FastifyInstance;
let port: number;
let lines: { msg: string; reason?: string }[];

beforeEach(() => {
  volume = new SecretVolume();
  lines = [];
});
afterEach(async () => {
  app?.server.closeAllConnections();
  await app?.close();
  volume.remove();
});

async function start({ cert, key }: Issued, clientCa: string | null): Promise<void> {
  volume.put({ 'tls.crt': cert, 'tls.key': key, 'ca.crt': clientCa ?? '' });
  const paths = { cert: volume.path('tls.crt'), key: volume.path('tls.key') };
  const all = { ...paths, clientCa: clientCa === null ? null : volume.path('ca.crt') };
  const tls = await TlsFiles.read(all, LOOK_MS);
  const log = pino({ level: 'info' }, { write: (line: string) => void lines.push(JSON.parse(line)) });
  const { registry } = bench();
  app = buildAdminApp({ registry, token: () => TOKEN, tls, log });
  await app.listen({ host: '127.0.0.1', port: 0 });
  port = (app.server.address() as AddressInfo).port;
}

interface Offered {
  own?: Issued;
  ca?: string;
}

const caller = ({ own, ca: trusted = ca.certificate }: Offered) => ({
  ...{ host: '127.0.0.1', port, servername: 'pods.test', ca: trusted },
  ...(own ? { cert: own.cert, key: own.key } : {}),
});

async function call(path: string, offered: Offered = {}): Promise<{ status: number; body: string }> {
  const headers = { authorization: `Bearer ${TOKEN}` };
  const sent = request({ ...caller(offered), path, headers, agent: false as unknown as Agent }).end();
  const [response] = (await once(sent, 'response')) as [IncomingMessage];
  return { status: response.statusCode ?? 0, body: await text(response) };
}

const said = (message: string) => lines.filter(({ msg }) => msg === message);
const hear = (message: string, times = 1) =>
  eventually(message, PATIENCE, () => said(message).length >= times || undefined);

/** Of the certificate that a new connection meets. */
async function serialMet(trusted = ca): Promise<string> {
  const socket = connect(caller({ own: client, ca: trusted.certificate }));
  await once(socket, 'secureConnect');
  const { serialNumber } = socket.getPeerCertificate();
  socket.destroy();
  return serialNumber;
}

describe('the admin API over TLS', () => {
  it('serves who trusts its CA, and nobody in plain text', async () => {
    await start(server, null);
    expect(await call('/lora/v1/state')).toMatchObject({ status: 200 });
    await expect(fetch(`http://127.0.0.1:${port}/healthz`)).rejects.toThrow('fetch failed');
    await expect(call('/healthz', { ca: strangersCa.certificate })).rejects.toThrow('unable to verify');
  });

  it.each([
    ['without a certificate', () => ({})],
    ["with one of a stranger's CA", () => ({ own: stranger })],
  ])('reads nothing from a client %s', async (_name, offered: () => Offered) => {
    await start(server, ca.certificate);
    let requests = 0;
    app.server.on('request', () => {
      requests += 1;
    });
    await expect(call('/healthz', offered())).rejects.toThrow();
    expect(requests).toBe(0);
    expect(await call('/lora/v1/state', { own: client })).toMatchObject({ status: 200 });
    expect(requests).toBe(1);
  });

  it('counts a request under way to the connection that it came by', async () => {
    await start(server, null);
    const busy = connect(caller({}));
    await once(busy, 'secureConnect');
    busy.write(`GET /lora/v1/watch HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${TOKEN}\r\n\r\n`);
    await once(busy, 'data');
    const others: TLSSocket[] = [];
    // More than the places that are kept for others: the first of them go, and not the one that is served.
    for (let count = 0; count < 260; count += 1) {
      const other = connect(caller({})).on('error', () => undefined);
      others.push(other);
      if (count % 20 === 0) await once(other, 'secureConnect');
    }
    await eventually('room is made', PATIENCE, () => others.some(({ closed }) => closed) || undefined);
    expect(busy.closed).toBe(false);
    for (const socket of [busy, ...others]) socket.destroy();
  });
});

it('closes although a handshake is under way', async () => {
  await start(server, null);
  const slow = connectPlain(port, '127.0.0.1').on('error', () => undefined);
  await once(app.server, 'connection');
  const closed = app.close();
  await eventually('it listens no more', PATIENCE, () => !app.server.listening || undefined);
  connect({ ...caller({}), socket: slow }).on('error', () => undefined);
  await closed;
});

describe('a changed certificate', () => {
  it('is taken by new connections without a restart, and a client that stays connected is served on', async () => {
    await start(server, ca.certificate);
    const kept = connect(caller({ own: client }));
    await once(kept, 'secureConnect');
    const before = await serialMet();
    const next = ca.issue('DNS:pods.test', 'next');
    volume.put({ 'tls.crt': next.cert, 'tls.key': next.key, 'ca.crt': ca.certificate });
    await hear('took the new certificate');
    expect(await serialMet()).not.toBe(before);
    kept.write('GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n');
    expect(String((await once(kept, 'data'))[0])).toMatch(/^HTTP\/1.1 200/);
    kept.destroy();
  });

  it('with a new CA of clients shuts those of the old one out', async () => {
    await start(server, ca.certificate);
    expect(await call('/healthz', { own: client })).toMatchObject({ status: 200 });
    volume.put({ 'tls.crt': server.cert, 'tls.key': server.key, 'ca.crt': strangersCa.certificate });
    await hear('took the new certificate');
    await expect(call('/healthz', { own: client })).rejects.toThrow();
    expect(await call('/healthz', { own: stranger })).toMatchObject({ status: 200 });
  });

  it.each([
    [
      'of which only the certificate is new',
      (next: Issued) => ({ 'tls.crt': next.cert }),
      'is not the key of',
    ],
    ['that is cut off', (next: Issued) => ({ 'tls.crt': next.cert.slice(0, 300) }), 'a certificate in PEM'],
    ['whose key is cut off', () => ({ 'tls.key': server.key.slice(0, 60) }), 'a private key in PEM'],
    ['whose CA of clients is empty', () => ({ 'ca.crt': '' }), 'holds no certificate in PEM'],
  ])('%s leaves the old one, says so once, and is taken when it is whole', async (_name, half, reason) => {
    await start(server, ca.certificate);
    const before = await serialMet();
    const next = ca.issue('DNS:pods.test', 'next');
    const old = { 'tls.crt': server.cert, 'tls.key': server.key, 'ca.crt': ca.certificate };
    volume.put({ ...old, ...half(next) });
    const KEPT = 'kept the old certificate: the new one cannot be used';
    await hear(KEPT);
    expect(await serialMet()).toBe(before);
    expect(said(KEPT).map((line) => line.reason)).toEqual([expect.stringContaining(reason)]);
    volume.put({ ...old, 'tls.crt': next.cert, 'tls.key': next.key });
    await hear('took the new certificate');
    expect(await serialMet()).not.toBe(before);
  });
});

describe('files that cannot be used at the start', () => {
  it.each([
    ['are not there', null, 'cannot be read: ENOENT'],
    ['hold another key', () => ({ 'tls.key': client.key }), 'is not the key of'],
    ['hold no certificate', () => ({ 'tls.crt': 'x' }), 'does not hold a certificate in PEM'],
  ])('and %s end the program with a flag error', async (_name, files, reason) => {
    if (files) volume.put({ 'tls.crt': server.cert, 'tls.key': server.key, ...files() });
    else writeFileSync(volume.path('other'), '');
    const paths = { cert: volume.path('tls.crt'), key: volume.path('tls.key'), clientCa: null };
    const error = await TlsFiles.read(paths).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(ConfigError);
    expect((error as ConfigError).message).toContain(reason);
  });
});
