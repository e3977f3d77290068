import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { CaFile } from '../../../server/transfer/ca-file.ts';
import { TlsFiles } from '../../../server/transfer/tls-files.ts';
import { digestOf } from '../../support/adapter-files.ts';
import { type Issued, SecretVolume, TestCa } from '../../support/certificates.ts';
import { type Harness, startHarness } from './harness.ts';
import { loraAdapter } from './objects.ts';

const NAME = 'parrot.lora.svc';

let ca: TestCa;
let newCa: TestCa;
beforeAll(() => {
  ca = new TestCa();
  newCa = new TestCa('lorikeet-test-ca-of-later');
});
afterAll(() => {
  ca.remove();
  newCa.remove();
});

let harness: Harness;
const volumes: SecretVolume[] = [];
afterEach(async () => {
  await harness.stop();
  for (const volume of volumes.splice(0)) volume.remove();
});

/** One that knows of its own CA only, in callers and in other pods. */
async function podOf(own: TestCa, { cert, key }: Issued = own.issue(`DNS:${NAME}`)) {
  const volume = new SecretVolume();
  volumes.push(volume);
  volume.put({ crt: cert, key, ca: own.certificate });
  const paths = { cert: volume.path('crt'), key: volume.path('key'), clientCa: null };
  return { tls: await TlsFiles.read(paths), relayCa: await CaFile.read(volume.path('ca')) };
}

/** The operator knows both CAs. */
async function start(...authorities: TestCa[]): Promise<void> {
  const shown = { ca: `${ca.certificate}${newCa.certificate}` };
  harness = await startHarness(await Promise.all(authorities.map((own) => podOf(own))), {
    serverName: NAME,
    shown,
  });
  harness.apply(loraAdapter('sql'));
  await harness.settle('sql');
}

const calls = (operation: 'upload' | 'stage') => harness.servers.map((server) => server.count(operation));
const served = () => new Set(harness.servers.map((server) => server.currentOf('sql')));

it('pods that speak TLS pass a revision on to each other, and the operator sends it once', async () => {
  await start(ca, ca, ca, ca);
  expect([served(), calls('upload'), calls('stage')]).toEqual([
    new Set([digestOf(harness.source.files)]),
    [1, 1, 1, 1],
    [0, 0, 0, 0],
  ]);
});

it('one that has the certificate of a new CA before the others know it is served by the operator', async () => {
  await start(ca, ca, newCa, ca);
  expect([served(), calls('upload'), calls('stage')]).toEqual([
    new Set([digestOf(harness.source.files)]),
    [1, 1, 0, 0],
    [0, 0, 1, 1],
  ]);
});
