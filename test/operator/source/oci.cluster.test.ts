import { createHash } from 'node:crypto';
import { Agent, request } from 'undici';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { OciRegistry } from '../../cluster/oci-registry.ts';
import { goodAdapter } from '../../support/adapter-files.ts';
import { openBench, type SourceBench } from './source-bench.ts';

const REPOSITORY = 'team/sql';
const MANIFEST_TYPE = 'application/vnd.oci.image.manifest.v1+json';
const files = goodAdapter(1);

let registry: OciRegistry;
let digest: string;
beforeAll(async () => {
  registry = await OciRegistry.start();
  digest = await push('v1', {
    'adapter_config.json': files.config,
    'adapter_model.safetensors': files.tensors,
  });
}, 60_000);
afterAll(() => registry?.stop());

let bench: SourceBench;
beforeEach(async () => {
  bench = await openBench('oci');
  bench.secrets.set('user', { ...registry.user, 'ca.crt': registry.ca.certificate });
  bench.secrets.set('ca', { 'ca.crt': registry.ca.certificate });
});
afterEach(() => bench.close());

const at = (reference: string, secret = 'user') => ({
  image: `${registry.host}/${REPOSITORY}${reference}`,
  credentialsSecretRef: { name: secret },
});
const digestOf = (bytes: Buffer) => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

/** As `oras push` does; returns the digest of the manifest. */
async function push(tag: string, artifact: Record<string, Buffer>): Promise<string> {
  const dispatcher = new Agent({ connect: { ca: registry.ca.certificate } });
  const base = `https://${registry.host}/v2/${REPOSITORY}`;
  const authorization = `Bearer ${registry.tokenFor(REPOSITORY, ['push', 'pull'])}`;
  const call = async (method: 'POST' | 'PUT', url: string, body?: Buffer, type?: string) => {
    const headers = { authorization, ...(type && { 'content-type': type }) };
    const answer = await request(url, { method, headers, body: body ?? null, dispatcher });
    expect(answer.statusCode, await answer.body.text()).toBeLessThan(300);
    return answer.headers;
  };
  const put = async (title: string, bytes: Buffer) => {
    const { location } = await call('POST', `${base}/blobs/uploads/`);
    const url = new URL(String(location), base);
    url.searchParams.set('digest', digestOf(bytes));
    await call('PUT', url.href, bytes, 'application/octet-stream');
    const annotations = { 'org.opencontainers.image.title': title };
    return {
      mediaType: 'application/octet-stream',
      digest: digestOf(bytes),
      size: bytes.length,
      annotations,
    };
  };
  const layers = [];
  for (const [title, bytes] of Object.entries(artifact)) layers.push(await put(title, bytes));
  const { annotations: _, ...empty } = await put('', Buffer.from('{}'));
  const config = { ...empty, mediaType: 'application/vnd.oci.empty.v1+json' };
  const kind = { schemaVersion: 2, mediaType: MANIFEST_TYPE, artifactType: 'application/vnd.lora.test' };
  const manifest = Buffer.from(JSON.stringify({ ...kind, config, layers }));
  await call('PUT', `${base}/manifests/${tag}`, manifest, MANIFEST_TYPE);
  await dispatcher.close();
  return digestOf(manifest);
}

it('an artifact is pulled from a real registry by tag and by digest, with a token that its server gives', async () => {
  const byTag = await bench.fetch(at(':v1'));
  expect(await bench.spooled(byTag.digest)).toEqual(files.tensors);
  expect(await bench.fetch(at(`@${digest}`))).toMatchObject({ digest: byTag.digest });
});

it('and not by who shows no user, nor where nothing is there', async () => {
  expect(await bench.failure(bench.resolve(at(':v1', 'ca')))).toMatchObject({ reason: 'SourceAccessDenied' });
  expect(await bench.failure(bench.resolve(at(':none')))).toMatchObject({ reason: 'SourceNotFound' });
});
