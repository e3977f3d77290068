import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { request } from 'node:https';
import { connect } from 'node:tls';
import { Agent, fetch } from 'undici';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { CaFile } from '../../../server/transfer/ca-file.ts';
import { connectorOf } from '../../../server/transfer/client-tls.ts';
import { TlsFiles } from '../../../server/transfer/tls-files.ts';
import { digestOf, goodAdapter } from '../../support/adapter-files.ts';
import { type Issued, SecretVolume, TestCa } from '../../support/certificates.ts';
import { eventually } from '../../support/eventually.ts';
import { configHeader } from './adapters.ts';
import { TOKENS } from './fake-reviews.ts';
import { type Rig, startRig } from './harness.ts';
import { PATH } from './raw-client.ts';

const PATIENCE = { timeoutMs: 20_000, everyMs: 20 };
const SAN = 'DNS:lorikeet.lorikeet-system.svc,IP:127.0.0.1';
const files = goodAdapter();

let ca: TestCa;
let otherCa: TestCa;
let pair: Issued;
beforeAll(() => {
  ca = new TestCa();
  otherCa = new TestCa();
  pair = ca.issue(SAN);
});
afterAll(() => {
  ca.remove();
  otherCa.remove();
});

let volume: SecretVolume;
let rigs: Rig[];
let trusted: CaFile;
let agent: Agent;
beforeEach(async () => {
  volume = new SecretVolume();
  show(pair, ca);
  trusted = await CaFile.read(volume.path('ca.crt'));
  agent = new Agent({ connect: connectorOf({ ca: trusted }, 3_000), allowH2: false });
  rigs = [];
});
afterEach(async () => {
  await Promise.all(rigs.map((rig) => rig.close()));
  await agent.destroy();
  volume.remove();
});

const show = ({ cert, key }: Issued, by: TestCa) =>
  volume.put({ 'tls.crt': cert, 'tls.key': key, 'ca.crt': by.certificate });

async function start(own?: Issued): Promise<Rig> {
  const place = own === undefined ? volume : new SecretVolume();
  if (own) place.put({ 'tls.crt': own.cert, 'tls.key': own.key });
  const tls = await TlsFiles.read(
    { cert: place.path('tls.crt'), key: place.path('tls.key'), clientCa: null },
    10,
  );
  if (own) place.remove();
  const rig = await startRig({}, { tls, ca: trusted });
  rigs.push(rig);
  return rig;
}

const pushTo = (rig: Rig) =>
  fetch(`https://127.0.0.1:${rig.port}${PATH}`, {
    method: 'PUT',
    headers: { authorization: `Bearer ${TOKENS.trainer}`, 'x-lora-config': configHeader(files.config) },
    body: new Uint8Array(files.tensors),
    dispatcher: agent,
  });

it('a push goes over TLS, and by no other way', async () => {
  const rig = await start();
  const reply = await pushTo(rig);
  expect([reply.status, ((await reply.json()) as { revision: string }).revision]).toEqual([
    200,
    digestOf(files),
  ]);
  await expect(fetch(`http://127.0.0.1:${rig.port}${PATH}`)).rejects.toThrow('fetch failed');
});

it('a stranger is refused before it sends its body', async () => {
  const rig = await start();
  const sent = request({
    ...{ host: '127.0.0.1', port: rig.port, ca: ca.certificate, path: PATH, method: 'PUT', agent: false },
    headers: { 'content-length': files.tensors.length, expect: '100-continue' },
  });
  let invited = false;
  sent.once('continue', () => {
    invited = true;
  });
  sent.flushHeaders();
  const [response] = await once(sent, 'response');
  expect([response.statusCode, invited]).toEqual([401, false]);
  sent.destroy();
});

it('a new certificate of a new CA is used by server and clients without a restart', async () => {
  const rig = await start();
  expect((await pushTo(rig)).status).toBe(200);
  const next = otherCa.issue(SAN);
  show(next, otherCa);
  const { serialNumber } = new X509Certificate(next.cert);
  await eventually('the new one', PATIENCE, async () => {
    const socket = connect({ host: '127.0.0.1', port: rig.port, rejectUnauthorized: false });
    await once(socket, 'secureConnect');
    const met = socket.getPeerCertificate().serialNumber;
    socket.destroy();
    return met === serialNumber || undefined;
  });
  // A connection of before would hide what a new one meets.
  await agent.close();
  agent = new Agent({ connect: connectorOf({ ca: trusted }, 3_000), allowH2: false });
  expect((await pushTo(rig)).status).toBe(200);
});

function pointTo(leader: Rig, follower: Rig): void {
  const annotations = { 'lorikeet.dev/push-address': `https://127.0.0.1:${leader.port}` };
  follower.leader.leading = null;
  follower.leader.holder = () => ({ identity: 'operator-0', annotations });
}

it('an operator that does not lead passes a push on to the leader over TLS', async () => {
  const [leader, follower] = [await start(ca.issue('DNS:lorikeet.lorikeet-system.svc')), await start()];
  pointTo(leader, follower);
  expect((await pushTo(follower)).status).toBe(200);
  expect(leader.publisher.publications).toHaveLength(1);
});

it.each([
  ["of another CA's", () => otherCa.issue(SAN)],
  ['for another name', () => ca.issue('DNS:elsewhere.svc')],
])('but not to one on its address that has a certificate %s', async (_name, issue) => {
  const [leader, follower] = [await start(issue()), await start()];
  pointTo(leader, follower);
  const reply = await pushTo(follower);
  expect([reply.status, ((await reply.json()) as { error: { code: string } }).error.code]).toEqual([
    503,
    'not_leader',
  ]);
  expect([leader.publisher.publications, leader.reviews.asked]).toEqual([[], []]);
});

it('a CA that cannot be used ends the program at its start, and later leaves the one before', async () => {
  await expect(CaFile.read(volume.path('none'))).rejects.toThrow('cannot be read: ENOENT');
  await expect(CaFile.read(volume.path('tls.key'))).rejects.toThrow('holds no certificate in PEM');
  volume.put({ 'tls.crt': pair.cert, 'tls.key': pair.key, 'ca.crt': 'x' });
  expect(await trusted.current()).toBe(ca.certificate);
});
