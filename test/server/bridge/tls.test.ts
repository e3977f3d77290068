import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { type Issued, SecretVolume, TestCa } from '../../support/certificates.ts';
import { type ParrotServer, startParrot } from '../../support/parrot-server.ts';
import { bridge, type TestBridge } from './start.ts';

const NAME = 'parrot.lora.svc';

let ca: TestCa;
let otherCa: TestCa;
let pod: ParrotServer;
const volumes: SecretVolume[] = [];

/** Files as a pod has them; returns the path of each. */
function mounted({ cert, key }: Issued): Record<'crt' | 'key' | 'ca', string> {
  const volume = new SecretVolume();
  volumes.push(volume);
  volume.put({ crt: cert, key, ca: ca.certificate });
  return { crt: volume.path('crt'), key: volume.path('key'), ca: volume.path('ca') };
}

beforeAll(async () => {
  ca = new TestCa();
  otherCa = new TestCa();
  const files = mounted(ca.issue(`DNS:${NAME}`));
  const tls = ['--admin-tls-cert-file', files.crt, '--admin-tls-key-file', files.key];
  pod = await startParrot(['--vllm-api', ...tls, '--admin-client-ca-file', files.ca]);
});
afterAll(async () => {
  await pod.close();
  for (const volume of volumes) volume.remove();
  ca.remove();
  otherCa.remove();
});

let opened: TestBridge | null = null;
afterEach(async () => {
  await opened?.close();
  opened = null;
});

async function load(own: Issued | null, serverName = NAME) {
  const files = mounted(own ?? ca.issue('DNS:unused'));
  const shown = own === null ? [] : ['--push-cert-file', files.crt, '--push-key-file', files.key];
  const trusted = ['--push-ca-file', files.ca, '--push-server-name', serverName];
  opened = await bridge({ push: [pod.admin], serving: [pod.serving] }, [...shown, ...trusted]);
  const lora_path = opened.save('policy-v1', 'sql');
  return await opened.post('/v1/load_lora_adapter', { lora_name: 'policy-v1', lora_path });
}

it('a bridge shows its certificate to pods that ask for one, and knows them by the name of their pool', async () => {
  expect(pod.admin).toMatch(/^https:/);
  expect((await load(ca.issue('DNS:bridge'))).status).toBe(200);
});

it.each<[string, () => Issued | null, string]>([
  ['without a certificate', () => null, NAME],
  ['with one of another CA', () => otherCa.issue('DNS:bridge'), NAME],
  ['that expects pods of another name', () => ca.issue('DNS:bridge'), 'owl.lora.svc'],
])('one %s brings nothing', async (_, own, serverName) => {
  const { status, body } = await load(own(), serverName);
  expect([status, body.error.message]).toEqual([502, expect.stringMatching(/^The push failed/)]);
});
