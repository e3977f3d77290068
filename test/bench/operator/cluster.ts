import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { LoraAdapter } from '../../../operator/api/lora-adapter.ts';
import { Api } from '../../cluster/api.ts';
import { type ControlPlane, startControlPlane } from '../../cluster/control-plane.ts';
import { type ObjectStore, startObjectStore } from '../../cluster/object-store.ts';
import { ROOT } from '../../e2e/world.ts';
import { kubePod, NAMESPACE, serverPool } from '../../operator/adapter/objects.ts';
import { CONFIG, digestOf, f32, factorName, packSafetensors } from '../../support/adapter-files.ts';
import { eventually } from '../../support/eventually.ts';
import { POD_TOKEN } from '../../support/pod/scripted-pod.ts';
import { adapterName, say } from './steps.ts';

const ADAPTERS = `/apis/lorikeet.dev/v1alpha1/namespaces/${NAMESPACE}/loraadapters`;
const PODS = `/api/v1/namespaces/${NAMESPACE}/pods`;
const BUCKET = 'adapters';
const AT_ONCE = 16;

interface AdapterList {
  metadata: { resourceVersion: string };
  items: LoraAdapter[];
}

/** A real API server with a pool, an object store with adapters, and what is seen of them. */
export class BenchCluster {
  readonly plane: ControlPlane;
  readonly #store: ObjectStore;
  readonly #api: Api;
  readonly #end = new AbortController();
  /** Those that are ready, and what status says of their pods, as `2/2`. */
  readonly ready = new Map<string, string>();
  readonly known = new Set<string>();

  private constructor(plane: ControlPlane, store: ObjectStore, api: Api) {
    this.plane = plane;
    this.#store = store;
    this.#api = api;
  }

  static async start(pods: { hosts: string[]; port: number }): Promise<BenchCluster> {
    const [plane, store] = await Promise.all([startControlPlane(), startObjectStore()]);
    const cluster = new BenchCluster(plane, store, await Api.fromKubeconfig(plane.kubeconfig));
    await plane.kubectl(['apply', '--server-side', '-f', join(ROOT, 'crds')]);
    await plane.kubectl(['wait', '--for=condition=Established', '--timeout=30s', 'crd', '--all']);
    await plane.kubectl(['create', 'namespace', NAMESPACE]);
    await plane.kubectl(['-n', NAMESPACE, 'create', 'sa', 'default']);
    await cluster.#secret('admin', { token: POD_TOKEN });
    const { accessKeyId, secretAccessKey } = store;
    await cluster.#secret('adapters-s3', { accessKeyId, secretAccessKey });
    await inTurns(pods.hosts, (host, index) => cluster.#createPod(`pod-${index}`, host));
    const { uid: _, ...metadata } = serverPool(pods.port).metadata;
    const pool = { ...serverPool(pods.port), metadata };
    await plane.kubectl(['apply', '-f', '-'], JSON.stringify(pool));
    // A kind that has just been made is not served at once.
    await eventually('adapters are listed', { timeoutMs: 30_000 }, () => cluster.#api.get(ADAPTERS));
    void cluster.#follow();
    return cluster;
  }

  async createAdapters(count: number, placement?: object): Promise<void> {
    await inTurns(Array.from({ length: count }), async (_, index) => {
      const name = adapterName(index);
      await this.putContent(name, index);
      const objectStore = {
        uri: `s3://${BUCKET}/${name}/`,
        endpoint: this.#store.endpoint,
        region: this.#store.region,
        credentialsSecretRef: { name: 'adapters-s3' },
      };
      await this.#api.call('POST', ADAPTERS, {
        apiVersion: 'lorikeet.dev/v1alpha1',
        kind: 'LoraAdapter',
        metadata: { name, namespace: NAMESPACE },
        spec: { poolRef: { name: 'parrot' }, source: { objectStore }, ...(placement && { placement }) },
      });
    });
  }

  countOf(summary: string): number {
    return [...this.ready.values()].filter((item) => item === summary).length;
  }

  async place(placement: object): Promise<void> {
    await inTurns([...this.known], async (name) => {
      await this.#api.call('PATCH', `${ADAPTERS}/${name}`, { spec: { placement } });
    });
  }

  /** Small ones, as what is measured here is not how fast bytes are; returns the revision. */
  async putContent(name: string, seed: number): Promise<string> {
    const random = (at: number) => Math.sin(seed + at + 1);
    const tensors = [0, 1, 2, 3].flatMap((layer) => [
      [factorName(layer, 'v_proj', 'A'), f32([1, 256], random)] as const,
      [factorName(layer, 'v_proj', 'B'), f32([64, 1], random)] as const,
    ]);
    const files = {
      tensors: packSafetensors(new Map(tensors)),
      config: Buffer.from(JSON.stringify({ ...CONFIG, r: 1, target_modules: ['v_proj'] })),
    };
    await this.#store.put(BUCKET, `${name}/adapter_model.safetensors`, files.tensors);
    await this.#store.put(BUCKET, `${name}/adapter_config.json`, files.config);
    return digestOf(files);
  }

  async refresh(name: string): Promise<void> {
    const annotations = { 'lorikeet.dev/refresh': new Date().toISOString() };
    await this.#api.call('PATCH', `${ADAPTERS}/${name}`, { metadata: { annotations } });
  }

  async deleteAll(): Promise<void> {
    await inTurns([...this.known], async (name) => {
      await this.#api.call('DELETE', `${ADAPTERS}/${name}`);
    });
  }

  /** Calls of a verb that the API server has answered: of statuses, or of all that is no lease. */
  async writes(only: 'status' | 'all'): Promise<number> {
    const text = await this.#api.text('/metrics');
    let sum = 0;
    for (const [, labels = '', value] of text.matchAll(/^apiserver_request_total\{(.*)\} (\S+)$/gm)) {
      const isWrite = /verb="(PUT|PATCH|POST|APPLY)"/.test(labels);
      const isOurs = /resource="(loraadapters|serverpools|events)"/.test(labels);
      const isStatus = labels.includes('subresource="status"');
      if (isWrite && isOurs && (only === 'all' || isStatus)) sum += Number(value);
    }
    return sum;
  }

  async stop(): Promise<void> {
    this.#end.abort();
    await this.#api.close();
    await Promise.all([this.plane.stop(), this.#store.stop()]);
  }

  /** The API server ends a watch whose reader is behind: from there on all is listed anew. */
  async #follow(): Promise<void> {
    const { signal } = this.#end;
    while (!signal.aborted) {
      try {
        const { items, metadata } = (await this.#api.get(ADAPTERS)) as AdapterList;
        const present = new Set(items.map((item) => item.metadata.name));
        for (const name of this.known) if (!present.has(name)) this.#forget(name);
        for (const item of items) this.#see(item);
        const path = `${ADAPTERS}?watch=true&resourceVersion=${metadata.resourceVersion}`;
        for await (const { type, object } of this.#api.watch(path, signal)) {
          if (type === 'DELETED') this.#forget((object as LoraAdapter).metadata.name);
          else if (type === 'ERROR') break;
          else this.#see(object as LoraAdapter);
        }
      } catch (error) {
        if (!signal.aborted) say(`the bench's own watch failed: ${(error as Error).message}`);
        await sleep(100);
      }
    }
  }

  #see({ metadata: { name }, status }: LoraAdapter): void {
    const isReady = status?.conditions?.some((item) => item.type === 'Ready' && item.status === 'True');
    this.known.add(name);
    if (isReady) this.ready.set(name, status?.pods?.summary ?? '');
    else this.ready.delete(name);
  }

  #forget(name: string): void {
    this.known.delete(name);
    this.ready.delete(name);
  }

  async #secret(name: string, stringData: Record<string, string>): Promise<void> {
    const secret = { apiVersion: 'v1', kind: 'Secret', metadata: { name, namespace: NAMESPACE }, stringData };
    await this.#api.call('POST', `/api/v1/namespaces/${NAMESPACE}/secrets`, secret);
  }

  async #createPod(name: string, host: string): Promise<void> {
    const { status, metadata, ...pod } = kubePod(name, host);
    const { uid: _, ...given } = metadata;
    const spec = { containers: [{ name: 'server', image: 'none' }] };
    await this.#api.call('POST', PODS, { ...pod, metadata: given, spec });
    const reported = { status: { ...status, podIPs: [{ ip: host }] } };
    await this.#api.call('PATCH', `${PODS}/${name}/status`, reported);
  }
}

async function inTurns<T>(
  items: readonly T[],
  act: (item: T, index: number) => Promise<void>,
): Promise<void> {
  const left = items.entries();
  const work = async () => {
    for (const [index, item] of left) await act(item, index);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
}
