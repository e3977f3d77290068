import { join, resolve } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { LORA_ADAPTERS, type LoraAdapter } from '../../../operator/api/lora-adapter.ts';
import { SERVER_POOLS, type ServerPool } from '../../../operator/api/server-pool.ts';
import { pathOf, type Resource } from '../../../operator/kube/resource.ts';
import { Rest } from '../../../operator/kube/rest.ts';
import { type ControlPlane, startControlPlane } from '../../cluster/control-plane.ts';
import { eventually } from '../../support/eventually.ts';
import {
  adapterManifest,
  FULL_ADAPTER_STATUS,
  FULL_POOL_STATUS,
  type Manifest,
  poolManifest,
} from './objects.ts';

const CRDS = resolve(import.meta.dirname, '../../../crds');
const STRICT = { fieldValidation: 'Strict' };
const START_MS = 90_000;

/** Starts an etcd and an API server: a few seconds. */
describe('the CRDs, on a real API server', () => {
  let plane: ControlPlane;
  let rest: Rest;
  let discoveries = 0;

  beforeAll(async () => {
    plane = await startControlPlane();
    rest = Rest.fromKubeconfig({ kubeconfig: plane.kubeconfig });
    await plane.kubectl(['apply', '--server-side', '-f', CRDS]);
    await plane.kubectl(['wait', '--for=condition=Established', '--timeout=30s', 'crd', '--all']);
    await eventually('kubectl knows the category', { timeoutMs: 20_000, everyMs: 200 }, getAll);
  }, START_MS);

  afterAll(async () => {
    await rest?.close();
    await plane?.stop();
  }, START_MS);

  afterEach(async () => {
    for (const resource of [LORA_ADAPTERS, SERVER_POOLS]) {
      await rest.request({ method: 'DELETE', path: pathOf(resource, { namespace: 'default' }) });
    }
  });

  /** What `kubectl get lorikeet` lists. The cache is new, for kubectl would go on not knowing what it did not know. */
  async function getAll(): Promise<string[]> {
    discoveries += 1;
    const cache = join(plane.dir, `discovery-${discoveries}`);
    const names = await plane.kubectl(['get', 'lorikeet', '-o', 'name', `--cache-dir=${cache}`]);
    return names.split('\n').filter((name) => name !== '');
  }

  function create<T = Manifest>(resource: Resource, manifest: Manifest): Promise<T> {
    const path = pathOf(resource, { namespace: 'default' });
    return rest.request<T>({ method: 'POST', path, body: manifest, query: STRICT });
  }

  function patch<T = Manifest>(
    resource: Resource,
    name: string,
    body: object,
    subresource?: string,
  ): Promise<T> {
    const path = pathOf(resource, { namespace: 'default', name, subresource });
    return rest.request<T>({ method: 'PATCH', path, body, query: STRICT });
  }

  it('are accepted without a complaint about the schema', async () => {
    const found = JSON.parse(await plane.kubectl(['get', 'crd', '-o', 'json']));
    for (const { metadata, status } of found.items) {
      const bad = status.conditions.filter(({ type }: { type: string }) => type === 'NonStructuralSchema');
      expect(bad, metadata.name).toEqual([]);
    }
    expect(found.items).toHaveLength(2);
  });

  it('fill in the defaults', async () => {
    const adapter = await create<LoraAdapter>(LORA_ADAPTERS, adapterManifest('a'));
    expect(adapter.spec).toEqual({
      poolRef: { name: 'llama' },
      source: { push: { durability: 'Memory' } },
      refresh: { mode: 'Pinned', interval: '5m' },
      placement: { mode: 'All', priority: 0 },
      update: { consistency: 'PerPod', maxSkew: '500ms', inFlight: 'Finish', keepRevisions: 2 },
      deletion: { policy: 'Drain', drainTimeout: '60s' },
      suspend: false,
    });
    const pool = await create<ServerPool>(SERVER_POOLS, poolManifest('p'));
    expect(pool.spec).toMatchObject({
      admin: { port: 8001, auth: { tokenSecretRef: { name: 'token', key: 'token' } } },
      limits: {},
      unmanaged: 'Report',
    });
  });

  const s3 = { uri: 's3://adapters/sql/' };
  const http = { url: 'https://models.test/sql/adapter_model.safetensors', sha256: 'a'.repeat(64) };
  const good: Record<string, Record<string, unknown>> = {
    'a served name with all that is allowed': { servedName: 'Org/a.b_c-9:D' },
    'a bucket without a prefix': { source: { objectStore: { uri: 's3://adapters' } } },
    'a file on a web server': { source: { http } },
    'a file on a web server under a query': {
      source: { http: { ...http, url: 'http://127.0.0.1:8080/a.safetensors?download=true' } },
    },
    'a bucket of Google': { source: { objectStore: { uri: 'gs://my_adapters/sql/' } } },
    'a container of Azure': { source: { objectStore: { uri: 'az://models/lora-adapters/sql/' } } },
    'a repository of a hub': {
      source: { huggingFace: { repo: 'Example/sql.lora', revision: 'refs/pr/1', path: 'step-100' } },
    },
    'an artifact by tag': { source: { oci: { image: 'registry.test:5000/team/sql_lora:v1.2' } } },
    'an artifact by digest': { source: { oci: { image: `registry.test/sql@sha256:${'a'.repeat(64)}` } } },
    'bytes as a number': { source: { push: { maxBytes: 1048576 } } },
    'bytes with a suffix': { source: { push: { maxBytes: '1.5Gi' } } },
    'pushes that are kept in a bucket': {
      source: { push: { durability: 'ObjectStore', objectStore: s3 } },
    },
    'a duration of two parts': { deletion: { drainTimeout: '1m30s' } },
    'a source that is looked at every ten seconds': {
      source: { objectStore: s3 },
      refresh: { mode: 'Poll', interval: '10s' },
    },
    'no earlier revisions kept': { update: { keepRevisions: 0 } },
    'running requests that go on with the new revision': { update: { inFlight: 'Migrate' } },
    'a number of pods': { placement: { mode: 'Fixed', replicas: 2, spread: 'zone', priority: -3 } },
    'no pod': { placement: { mode: 'Fixed', replicas: 0 } },
    'a share of the pods': { placement: { mode: 'Fixed', replicas: '50%' } },
    'pods by traffic': { placement: { mode: 'Auto' } },
    'pods by traffic, at least some': { placement: { mode: 'Auto', replicas: '10%' } },
    'an expectation of each kind': {
      verify: { sha256: 'a'.repeat(64), rank: 64, targetModules: ['q_proj'] },
    },
  };
  for (const [name, spec] of Object.entries(good)) {
    it(`accept ${name}`, async () => {
      await create(LORA_ADAPTERS, adapterManifest('good', spec));
    });
  }

  const bad: Record<string, [Record<string, unknown>, RegExp]> = {
    'no source': [{ source: {} }, /exactly one of objectStore, huggingFace, http, oci and push/],
    'two sources': [
      { source: { push: {}, objectStore: s3 } },
      /exactly one of objectStore, huggingFace, http, oci and push/,
    ],
    'no pool': [{ poolRef: undefined }, /spec\.poolRef: Required/],
    'a served name that pins a revision': [{ servedName: 'sql@step-1' }, /spec\.servedName/],
    'a served name with an empty part': [{ servedName: 'org//sql' }, /spec\.servedName/],
    'a served name that ends in a dot': [{ servedName: 'sql.' }, /spec\.servedName/],
    'a served name that is too long': [{ servedName: 'a'.repeat(257) }, /spec\.servedName/],
    'an empty served name': [{ servedName: '' }, /spec\.servedName/],
    'another scheme': [{ source: { objectStore: { uri: 'file:///etc' } } }, /spec\.source\.objectStore\.uri/],
    'a file without its checksum': [{ source: { http: { url: http.url } } }, /http\.sha256: Required/],
    'a config of its own URL without its checksum': [
      { source: { http: { ...http, configURL: 'https://models.test/c.json' } } },
      /configURL needs configSha256/,
    ],
    'a folder as a file': [{ source: { http: { ...http, url: 'https://models.test/sql/' } } }, /http\.url/],
    'a password in a URL': [
      { source: { http: { ...http, url: 'https://a:b@models.test/sql.safetensors' } } },
      /http\.url/,
    ],
    'an account without a container': [
      { source: { objectStore: { uri: 'az://models' } } },
      /objectStore\.uri/,
    ],
    'an artifact without tag and digest': [{ source: { oci: { image: 'registry.test/sql' } } }, /oci\.image/],
    'an artifact by its URL': [{ source: { oci: { image: 'https://registry.test/sql:v1' } } }, /oci\.image/],
    'a repository without an owner': [{ source: { huggingFace: { repo: 'sql' } } }, /huggingFace\.repo/],
    'three sources': [{ source: { push: {}, objectStore: s3, http } }, /exactly one of/],
    'an endpoint that is no URL': [{ source: { objectStore: { ...s3, endpoint: 'minio' } } }, /endpoint/],
    'an unknown field': [{ placment: { mode: 'All' } }, /unknown field "spec\.placment"/],
    'a placement that is not built': [{ placement: { mode: 'Some' } }, /Unsupported value: "Some"/],
    'a fixed number that is not said': [{ placement: { mode: 'Fixed' } }, /mode Fixed needs replicas/],
    'replicas of a mode that has none': [{ placement: { replicas: 2 } }, /replicas needs mode Fixed or Auto/],
    'a most of a mode that has none': [
      { placement: { mode: 'Fixed', replicas: 1, maxReplicas: 2 } },
      /maxReplicas needs mode Auto/,
    ],
    'fewer pods than none': [{ placement: { mode: 'Fixed', replicas: -1 } }, /replicas/],
    'more than all pods': [{ placement: { mode: 'Fixed', replicas: '101%' } }, /replicas/],
    'a share without a sign': [{ placement: { mode: 'Fixed', replicas: '50' } }, /replicas/],
    'a spread over something else': [
      { placement: { mode: 'Auto', spread: 'host' } },
      /Unsupported value: "host"/,
    ],
    'too many revisions kept': [{ update: { keepRevisions: 17 } }, /keepRevisions/],
    'durable pushes without a bucket': [
      { source: { push: { durability: 'ObjectStore' } } },
      /objectStore is what durability ObjectStore needs/,
    ],
    'a bucket for pushes in memory': [
      { source: { push: { objectStore: s3 } } },
      /objectStore is what durability ObjectStore needs/,
    ],
    'a negative size': [{ source: { push: { maxBytes: -1 } } }, /maxBytes/],
    'a size in words': [{ source: { push: { maxBytes: 'big' } } }, /maxBytes/],
    'a bare number as a duration': [{ deletion: { drainTimeout: '60' } }, /drainTimeout/],
    'polls every instant': [
      { source: { objectStore: s3 }, refresh: { mode: 'Poll', interval: '9999ms' } },
      /interval must be at least 10s/,
    ],
    'an upper-case checksum': [{ verify: { sha256: 'A'.repeat(64) } }, /sha256/],
    'a rank of zero': [{ verify: { rank: 0 } }, /rank/],
  };
  for (const [name, [spec, message]] of Object.entries(bad)) {
    it(`refuse ${name}`, async () => {
      const refused = create(LORA_ADAPTERS, adapterManifest('bad', spec));
      await expect(refused).rejects.toThrow(message);
    });
  }

  it('take the longest name that an object may have, and served names with slashes and versions', async () => {
    await create(LORA_ADAPTERS, adapterManifest('a'.repeat(253)));
    await create(LORA_ADAPTERS, adapterManifest('versioned', { servedName: 'org/Qwen3-4B:sql@5' }));
  });

  const badPools: Record<string, [Record<string, unknown>, RegExp]> = {
    'a selector of everything': [{ selector: {} }, /an empty selector would take every pod/],
    'a selector of empty labels': [
      { selector: { matchLabels: {} } },
      /an empty selector would take every pod/,
    ],
    'a port out of range': [
      { admin: { port: 0, auth: { tokenSecretRef: { name: 'token' } } } },
      /spec\.admin\.port/,
    ],
    'no token': [{ admin: { port: 8001 } }, /spec\.admin\.auth: Required/],
    'a selector of namespaces without its word': [
      { tenancy: { namespaces: { from: 'All', selector: { matchLabels: { team: 'rl' } } } } },
      /selector must be set where from is Selector/,
    ],
    'a word for a selector without one': [
      { tenancy: { namespaces: { from: 'Selector' } } },
      /selector must be set where from is Selector/,
    ],
    'a digest that is none': [{ baseModel: { name: 'x', digest: 'sha256:1' } }, /spec\.baseModel\.digest/],
  };
  for (const [name, [spec, message]] of Object.entries(badPools)) {
    it(`refuse a pool with ${name}`, async () => {
      await expect(create(SERVER_POOLS, poolManifest('bad', spec))).rejects.toThrow(message);
    });
  }

  const immutable: Record<string, [Record<string, unknown>, Record<string, unknown>, RegExp]> = {
    'the pool': [{}, { poolRef: { name: 'other' } }, /poolRef is immutable/],
    'the served name': [{ servedName: 'sql' }, { servedName: 'sql2' }, /servedName is immutable/],
    'the absence of a served name': [{}, { servedName: 'sql' }, /servedName is immutable/],
    'the presence of a served name': [{ servedName: 'sql' }, { servedName: null }, /servedName is immutable/],
    'the kind of the source': [
      {},
      { source: { push: null, objectStore: s3 } },
      /the kind of a source is immutable/,
    ],
  };
  for (const [name, [spec, change, message]] of Object.entries(immutable)) {
    it(`let nobody change ${name}`, async () => {
      await create(LORA_ADAPTERS, adapterManifest('a', spec));
      await expect(patch(LORA_ADAPTERS, 'a', { spec: change })).rejects.toThrow(message);
    });
  }

  it('let the rest of the spec change', async () => {
    await create(LORA_ADAPTERS, adapterManifest('a', { source: { objectStore: s3 } }));
    const spec = {
      suspend: true,
      source: { objectStore: { uri: 's3://adapters/sql-2/' } },
      verify: { rank: 8 },
    };
    const changed = await patch<LoraAdapter>(LORA_ADAPTERS, 'a', { spec });
    expect(changed.spec).toMatchObject(spec);
  });

  it('keep every field of status, and the spec apart from it', async () => {
    const made = await create<LoraAdapter>(LORA_ADAPTERS, adapterManifest('a'));
    const adapter = await rest.request<LoraAdapter>({
      method: 'PUT',
      path: pathOf(LORA_ADAPTERS, { namespace: 'default', name: 'a', subresource: 'status' }),
      body: { ...made, status: FULL_ADAPTER_STATUS, spec: { ...made.spec, suspend: true } },
      query: STRICT,
    });
    expect(adapter.status).toEqual(FULL_ADAPTER_STATUS);
    expect(adapter.spec.suspend).toBe(false);
    await create(SERVER_POOLS, poolManifest('p'));
    const pool = await patch<ServerPool>(SERVER_POOLS, 'p', { status: FULL_POOL_STATUS }, 'status');
    expect(pool.status).toEqual(FULL_POOL_STATUS);
  });

  it('take a condition and a reason that this version does not know', async () => {
    await create(LORA_ADAPTERS, adapterManifest('a'));
    const conditions = [{ ...FULL_ADAPTER_STATUS.conditions?.[0], type: 'Relayed', reason: 'FromTheFuture' }];
    const { status } = await patch<LoraAdapter>(LORA_ADAPTERS, 'a', { status: { conditions } }, 'status');
    expect(status?.conditions).toEqual(conditions);
  });

  it('show what matters in kubectl get', async () => {
    await create(LORA_ADAPTERS, adapterManifest('sql'));
    await create(LORA_ADAPTERS, adapterManifest('waits'));
    await create(SERVER_POOLS, poolManifest('llama'));
    await patch(LORA_ADAPTERS, 'sql', { status: FULL_ADAPTER_STATUS }, 'status');
    await patch(SERVER_POOLS, 'llama', { status: FULL_POOL_STATUS }, 'status');
    const table = async (kind: string) =>
      (await plane.kubectl(['get', kind]))
        .trimEnd()
        .split('\n')
        .map((line) => line.split(/\s{2,}/).slice(0, -1));
    expect(await table('loras')).toEqual([
      ['NAME', 'POOL', 'SERVED', 'REVISION', 'STEP', 'READY', 'PODS'],
      ['sql', 'llama', 'sql', '0123456789ab', '4211', 'True', '2/2'],
      ['waits', 'llama'],
    ]);
    expect(await table('lorapool')).toEqual([
      ['NAME', 'BASE', 'ADAPTERS', 'SLOTS', 'USED', 'READY', 'PODS'],
      ['llama', 'llama-3.1-8b', '5', '16', '5', 'False', '2/3'],
    ]);
    expect(await plane.kubectl(['get', 'loras', '-o', 'wide'])).toMatch(/AGE\s+REASON\n/);
  });

  it('are explained by kubectl, field by field', async () => {
    const explained = await plane.kubectl(['explain', 'loras.spec', '--recursive=false']);
    expect(explained).toContain('What clients send as "model".');
    expect(explained).not.toContain('<no description>');
  });
});
