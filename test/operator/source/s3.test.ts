import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { systemClock } from '../../../operator/kube/clock.ts';
import { AddressGuard } from '../../../operator/source/address-guard.ts';
import { openS3 } from '../../../operator/source/s3.ts';
import { accessReader } from '../../../operator/source/s3-access.ts';
import { CERTIFICATE, KEY, PUBLIC_CERTIFICATE, PUBLIC_KEY } from './private-ca.ts';

vi.mock('node:tls', async (original) => {
  const { PUBLIC_CERTIFICATE } = await import('./private-ca.ts');
  return { ...(await original<typeof import('node:tls')>()), rootCertificates: [PUBLIC_CERTIFICATE] };
});

const KEYS = { accessKeyId: 'key', secretAccessKey: 'secret' };
const BROKEN = CERTIFICATE.replace(/CERTIFICATE-----\n.*\n/, 'CERTIFICATE-----\n');
const signal = AbortSignal.timeout(60_000);

const answering = (cert: string, key: string) =>
  createServer({ cert, key }, (_request, response) => {
    response.writeHead(200, { etag: '"one"', 'content-length': '7' }).end();
  });
const ofPrivateCa = answering(CERTIFICATE, KEY);
const ofPublicCa = answering(PUBLIC_CERTIFICATE, PUBLIC_KEY);

beforeAll(async () => {
  for (const server of [ofPrivateCa, ofPublicCa]) {
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  }
});
afterAll(() => {
  for (const server of [ofPrivateCa, ofPublicCa]) server.close();
});

/** Looks at the config behind a store. */
async function look(secret: Record<string, string>, server = ofPrivateCa) {
  const endpoint = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const source = {
    objectStore: { uri: 's3://adapters/sql/', endpoint, credentialsSecretRef: { name: 'minio' } },
  };
  const adapter = { metadata: { name: 'sql', namespace: 'team-a' }, spec: { source } };
  const readAccess = accessReader(async () => secret, systemClock);
  const guard = new AddressGuard({ allowed: ['127.0.0.0/8'], apiServer: null });
  const options = { readAccess, guard, ambient: null, connectTimeoutMs: 5_000 };
  const store = await openS3(adapter, options, signal);
  try {
    return await store.head('adapter_config.json', signal);
  } finally {
    store.close();
  }
}

describe('a store with a certificate of a private CA', () => {
  it('is read with the CA of its Secret', async () => {
    expect(await look({ ...KEYS, 'ca.crt': CERTIFICATE })).toMatchObject({ version: 'one', size: 7 });
  });

  it('does not take the trust from stores of other CAs', async () => {
    expect(await look({ ...KEYS, 'ca.crt': CERTIFICATE }, ofPublicCa)).toMatchObject({ version: 'one' });
  });

  it('is not trusted without, and the message says where the CA goes', async () => {
    await expect(look(KEYS)).rejects.toMatchObject({
      reason: 'SourceUnreachable',
      message:
        'The source is not trusted (DEPTH_ZERO_SELF_SIGNED_CERT): s3://adapters/sql/adapter_config.json.' +
        ' Put its CA under ca.crt into the Secret that spec.source names.',
    });
  });

  it.each([
    ['text', 'not a certificate'],
    ['a broken certificate', BROKEN],
    ['a good certificate and a broken one', `${CERTIFICATE}${BROKEN}`],
    ['a good certificate and one cut off', `${CERTIFICATE}${CERTIFICATE.slice(0, -40)}`],
    ['nothing', ''],
  ])('is not asked where the CA is %s', async (_name, ca) => {
    await expect(look({ ...KEYS, 'ca.crt': ca })).rejects.toMatchObject({
      reason: 'CredentialsNotFound',
      message: 'Expected certificates in PEM under ca.crt in Secret minio.',
    });
  });
});
