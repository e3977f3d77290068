import { resolve } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { LORA_ADAPTERS } from '../../../operator/api/lora-adapter.ts';
import { EventRecorder } from '../../../operator/kube/events.ts';
import { Elector } from '../../../operator/kube/leader.ts';
import { silentLog } from '../../../operator/kube/log.ts';
import { type Change, Reflector } from '../../../operator/kube/reflector.ts';
import { type KubeObject, keyOf, LEASES, pathOf, type Resource } from '../../../operator/kube/resource.ts';
import { Rest } from '../../../operator/kube/rest.ts';
import { StatusWriter } from '../../../operator/kube/status-writer.ts';
import { type ControlPlane, startControlPlane } from '../../cluster/control-plane.ts';
import { eventually } from './eventually.ts';

const START_MS = 90_000;
const CRDS = resolve(import.meta.dirname, '../../../crds');
const CONFIG_MAPS: Resource = {
  group: '',
  version: 'v1',
  plural: 'configmaps',
  kind: 'ConfigMap',
  namespaced: true,
};

/** Starts an etcd and an API server: a few seconds. */
describe('on a real API server', () => {
  let plane: ControlPlane;
  let rest: Rest;
  let stop: AbortController;
  let running: Promise<void>[];

  beforeAll(async () => {
    plane = await startControlPlane();
    rest = Rest.fromKubeconfig({ kubeconfig: plane.kubeconfig, perSecondMax: 1_000, burst: 1_000 });
    await plane.kubectl(['apply', '--server-side', '-f', CRDS]);
    await plane.kubectl(['wait', '--for=condition=Established', '--timeout=30s', 'crd', '--all']);
  }, START_MS);

  afterAll(async () => {
    await rest?.close();
    await plane?.stop();
  }, START_MS);

  beforeEach(() => {
    stop = new AbortController();
    running = [];
  });

  afterEach(async () => {
    stop.abort();
    await Promise.all(running);
  });

  function create<T extends KubeObject>(resource: Resource, name: string, rest_: object = {}): Promise<T> {
    const body = { metadata: { name, labels: { test: 'yes' } }, ...rest_ };
    return rest.request<T>({ method: 'POST', path: pathOf(resource, { namespace: 'default' }), body });
  }

  function remove(resource: Resource, name: string): Promise<unknown> {
    return rest.request({ method: 'DELETE', path: pathOf(resource, { namespace: 'default', name }) });
  }

  it('Reflector sees more than a page of objects, then every change', async () => {
    const names = Array.from({ length: 510 }, (_, index) => `map-${String(index).padStart(3, '0')}`);
    await Promise.all(names.map((name) => create(CONFIG_MAPS, name)));
    const told: string[] = [];
    const reflector = new Reflector<KubeObject & { data?: object }>({
      rest,
      resource: CONFIG_MAPS,
      labelSelector: 'test=yes',
      log: silentLog,
      onChange: ({ type, object }: Change<KubeObject>) => told.push(`${type} ${keyOf(object)}`),
    });
    running.push(reflector.run(stop.signal));
    await reflector.whenSynced();
    expect(reflector.list()).toHaveLength(510);
    expect(reflector.get('default/map-000')).toMatchObject({ apiVersion: 'v1', kind: 'ConfigMap' });

    told.length = 0;
    await create(CONFIG_MAPS, 'new');
    const path = pathOf(CONFIG_MAPS, { namespace: 'default', name: 'new' });
    await rest.request({ method: 'PATCH', path, body: { data: { a: '1' } } });
    await eventually(() => expect(reflector.get('default/new')?.data).toEqual({ a: '1' }));
    await remove(CONFIG_MAPS, 'new');
    await eventually(() => expect(reflector.get('default/new')).toBeUndefined());
    expect(told).toEqual(['added default/new', 'updated default/new', 'deleted default/new']);
    expect(reflector.counts).toMatchObject({ failures: 0, lists: 1, watches: 1 });
  });

  it('Reflector sees an object leave when its label does', async () => {
    await create(CONFIG_MAPS, 'labelled', { metadata: { name: 'labelled', labels: { only: 'this' } } });
    const reflector = new Reflector<KubeObject>({
      rest,
      resource: CONFIG_MAPS,
      labelSelector: 'only=this',
      log: silentLog,
      onChange: () => {},
    });
    running.push(reflector.run(stop.signal));
    await reflector.whenSynced();
    expect(reflector.list()).toHaveLength(1);
    const path = pathOf(CONFIG_MAPS, { namespace: 'default', name: 'labelled' });
    await rest.request({ method: 'PATCH', path, body: { metadata: { labels: { only: null } } } });
    await eventually(() => expect(reflector.list()).toHaveLength(0));
  });

  it('Elector writes a lease that the API server takes, and gives it back', async () => {
    let lost = 0;
    const elector = new Elector({
      rest,
      namespace: 'default',
      name: 'lorikeet-operator',
      identity: 'a',
      annotations: { 'lorikeet.dev/push-url': 'http://a:8080' },
      onLost: () => {
        lost += 1;
      },
      log: silentLog,
    });
    const ended = elector.run(stop.signal);
    running.push(ended);
    const { term } = await elector.whenLeading();
    const path = pathOf(LEASES, { namespace: 'default', name: 'lorikeet-operator' });
    expect(await rest.request({ method: 'GET', path })).toMatchObject({
      metadata: { annotations: { 'lorikeet.dev/push-url': 'http://a:8080' } },
      spec: { holderIdentity: 'a', leaseDurationSeconds: 6, leaseTransitions: term },
    });
    stop.abort();
    await ended;
    const released = await rest.request<{ spec: { holderIdentity?: string } }>({ method: 'GET', path });
    expect(released.spec.holderIdentity ?? '').toBe('');
    expect(lost).toBe(0);
  });

  it('StatusWriter writes status alone, and meets a conflict with whoever was quicker', async () => {
    const spec = { poolRef: { name: 'p' }, source: { push: {} } };
    const body = { apiVersion: 'lorikeet.dev/v1alpha1', kind: 'LoraAdapter', metadata: { name: 'a' }, spec };
    const made = await create<KubeObject & { status?: object }>(LORA_ADAPTERS, 'a', body);
    const failures: unknown[] = [];
    const onFailure = (_: string, error: unknown) => failures.push(error);
    const writer = new StatusWriter({ rest, resource: LORA_ADAPTERS, log: silentLog, onFailure });
    writer.write(made, { servedName: 'a', pods: { desired: 2, staged: 1, ready: 0, summary: '0/2' } });
    writer.write(made, { servedName: 'b' });
    await writer.flush('default/a');
    const path = pathOf(LORA_ADAPTERS, { namespace: 'default', name: 'a' });
    const first = await rest.request<KubeObject & { status: object; spec: object }>({ method: 'GET', path });
    expect(first.status).toEqual({ servedName: 'b' });
    expect(first.spec).toMatchObject(spec);
    expect(failures).toEqual([]);

    await rest.request({ method: 'PATCH', path, body: { metadata: { labels: { touched: 'yes' } } } });
    writer.write(first, { servedName: 'c' });
    await writer.flush('default/a');
    expect(failures).toMatchObject([{ status: 409, reason: 'Conflict' }]);
    expect(await rest.request({ method: 'GET', path })).toMatchObject({ status: { servedName: 'b' } });
  });

  it('EventRecorder speaks where kubectl describe listens', async () => {
    const map = await create(CONFIG_MAPS, 'described');
    const object = { ...map, apiVersion: 'v1', kind: 'ConfigMap' };
    const recorder = new EventRecorder({
      rest,
      component: 'lorikeet-operator',
      instance: 'i',
      log: silentLog,
      onDrop() {},
    });
    recorder.event(object, 'Warning', 'PodsFailed', 'two pods refused');
    recorder.event(object, 'Warning', 'PodsFailed', 'two pods refused');
    await recorder.flush();
    const described = await plane.kubectl(['describe', 'configmap', 'described']);
    expect(described).toMatch(/Warning\s+PodsFailed\s+.*\(x2 over .*\s+lorikeet-operator\s+two pods refused/);
  });

  it('Rest is refused with a token that is none', async () => {
    const credentials = {
      server: plane.url,
      authorization: async () => 'Bearer nobody',
      tls: async () => ({ rejectUnauthorized: false as const }),
    };
    const stranger = new Rest({ credentials });
    const call = stranger.request({ method: 'GET', path: pathOf(CONFIG_MAPS) });
    await expect(call).rejects.toMatchObject({ status: 401, reason: 'Unauthorized' });
    await stranger.close();
  });
});
