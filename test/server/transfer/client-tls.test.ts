import { once } from 'node:events';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { Agent, request } from 'undici';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { ConfigError } from '../../../server/contract/flags.ts';
import { CaFile } from '../../../server/transfer/ca-file.ts';
import { connectorOf } from '../../../server/transfer/client-tls.ts';
import { KeyPairFiles } from '../../../server/transfer/key-pair-files.ts';
import { type Issued, SecretVolume, TestCa } from '../../support/certificates.ts';

let ca: TestCa;
let volume: SecretVolume;
let server: Server;
let agent: Agent;

/** A server that answers with the name in the caller's certificate. */
beforeEach(async () => {
  ca = new TestCa();
  volume = new SecretVolume();
  const options = { ...ca.issue('IP:127.0.0.1'), ca: ca.certificate, requestCert: true };
  server = createServer(options, ({ socket }, response) => {
    response.setHeader('connection', 'close').end((socket as TLSSocket).getPeerCertificate().subject.CN);
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  show(ca.issue('DNS:first'));
  const pair = await KeyPairFiles.read(paths());
  const trusted = await CaFile.read(volume.path('ca'));
  agent = new Agent({
    connect: connectorOf({ ca: trusted, pair: () => pair.current() }, 3_000),
    allowH2: false,
  });
});
afterEach(async () => {
  await agent.destroy();
  server.closeAllConnections();
  server.close();
  volume.remove();
  ca.remove();
});

const paths = () => ({ cert: volume.path('crt'), key: volume.path('key') });
const show = ({ cert, key }: Issued) => volume.put({ crt: cert, key, ca: ca.certificate });
async function shown(): Promise<string> {
  const { port } = server.address() as AddressInfo;
  return await (await request(`https://127.0.0.1:${port}`, { dispatcher: agent })).body.text();
}

it('a client shows the certificate that its files hold then, and the one before where they hold none', async () => {
  expect(await shown()).toBe('DNS:first');
  const next = ca.issue('DNS:next');
  show({ cert: next.cert, key: 'half of' });
  expect(await shown()).toBe('DNS:first');
  show(next);
  expect(await shown()).toBe('DNS:next');
});

it.each<[string, () => Issued, string]>([
  ["another's key", () => ({ ...ca.issue('DNS:a'), key: ca.issue('DNS:b').key }), 'is not the key of'],
  ['no certificate', () => ({ ...ca.issue('DNS:a'), cert: 'x' }), 'does not hold a certificate in PEM'],
])('files with %s end a program at its start', async (_, pair, says) => {
  show(pair());
  const failure = await KeyPairFiles.read(paths()).catch((error: unknown) => error);
  expect(failure).toBeInstanceOf(ConfigError);
  expect((failure as ConfigError).message).toContain(says);
});

it('files that are not there end it too', async () => {
  const none = { cert: volume.path('none'), key: volume.path('key') };
  await expect(KeyPairFiles.read(none)).rejects.toThrow(/none cannot be read: ENOENT/);
});
