import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { eventually } from '../support/eventually.ts';
import { Api, isStatus } from './api.ts';
import { type ControlPlane, startControlPlane } from './control-plane.ts';
import { type ObjectStore, startObjectStore } from './object-store.ts';

describe('the control plane', () => {
  let plane: ControlPlane;

  beforeAll(async () => {
    plane = await startControlPlane();
  });

  afterAll(async () => {
    await plane.stop();
  });

  it('is a real API server: it keeps what is applied and says where a manifest is wrong', async () => {
    const manifest = {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: 'kept' },
      data: { key: 'value' },
    };
    await plane.kubectl(['apply', '-f', '-'], JSON.stringify(manifest));
    expect(await plane.kubectl(['get', 'configmap', 'kept', '-o', 'jsonpath={.data.key}'])).toBe('value');
    const wrong = { ...manifest, dta: {} };
    await expect(plane.kubectl(['apply', '-f', '-'], JSON.stringify(wrong))).rejects.toThrow(
      'unknown field "dta"',
    );
  });

  it('enforces RBAC: a ServiceAccount may do nothing until a role says so', async () => {
    await plane.kubectl(['create', 'serviceaccount', 'nobody']);
    const token = (await plane.kubectl(['create', 'token', 'nobody'])).trim();
    const admin = await Api.fromKubeconfig(plane.kubeconfig);
    const api = new Api({ url: plane.url, ca: admin.ca, token });
    const refusal = await api.get('/api/v1/namespaces/default/configmaps').catch((error: unknown) => error);
    expect(isStatus(refusal, 403)).toBe(true);
    await plane.kubectl(['create', 'role', 'lists', '--verb=list', '--resource=configmaps']);
    await plane.kubectl([
      'create',
      'rolebinding',
      'lists',
      '--role=lists',
      '--serviceaccount=default:nobody',
    ]);
    expect(await api.get('/api/v1/namespaces/default/configmaps')).toMatchObject({ kind: 'ConfigMapList' });
    await Promise.all([admin.close(), api.close()]);
  });

  it('enforces Pod Security in namespaces that are labelled so', async () => {
    const labels = { 'pod-security.kubernetes.io/enforce': 'restricted' };
    const namespace = { apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'strict', labels } };
    await plane.kubectl(['apply', '-f', '-'], JSON.stringify(namespace));
    await plane.kubectl(['create', 'serviceaccount', 'default', '-n', 'strict']);
    await expect(plane.kubectl(['run', 'loose', '--image=x', '-n', 'strict'])).rejects.toThrow(
      'violates PodSecurity',
    );
  });

  it('leaves no folder and no listener behind', async () => {
    const other = await startControlPlane();
    expect(existsSync(other.dir)).toBe(true);
    await other.stop();
    expect(existsSync(other.dir)).toBe(false);
    await expect(fetch(other.url)).rejects.toThrow();
  });
});

describe('the object store', () => {
  let store: ObjectStore;

  beforeAll(async () => {
    store = await startObjectStore();
  });

  afterAll(async () => {
    await store.stop();
  });

  it('does not outlive a test process that is killed', async () => {
    const script = fileURLToPath(new URL('fixtures/start-and-wait.ts', import.meta.url));
    // Folders are what nobody can remove after a SIGKILL: they go with the test's own.
    const folder = await mkdtemp(join(tmpdir(), 'lorikeet-killed-'));
    const env = { ...process.env, TMPDIR: folder };
    const starter = spawn(process.execPath, [script], { stdio: ['ignore', 'pipe', 'inherit'], env });
    const endpoint = await new Promise<string>((resolve) => {
      starter.stdout.once('data', (chunk: Buffer) => resolve(chunk.toString().trim()));
    });
    expect((await fetch(endpoint)).status).toBe(403);
    starter.kill('SIGKILL');
    await eventually('nobody listens', { timeoutMs: 5_000 }, () =>
      fetch(endpoint).then(
        () => undefined,
        () => 'gone',
      ),
    );
    await rm(folder, { recursive: true });
  });

  it('keeps versions of an object and refuses whoever has no keys', async () => {
    const first = await store.put('models', 'sql/adapter.bin', Buffer.from('one'));
    const second = await store.put('models', 'sql/adapter.bin', Buffer.from('two'));
    expect(first).not.toBe(second);
    expect((await fetch(`${store.endpoint}/models/sql/adapter.bin`)).status).toBe(403);
  });
});
