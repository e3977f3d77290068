import type { AdapterFiles } from '../client.ts';
import type { Cluster } from '../cluster.ts';
import { BUCKET, storedAdapter } from '../manifests.ts';
import type { Narrator } from '../narrator.ts';
import type { SeenPod } from '../objects.ts';
import { NAMESPACE, World } from '../world.ts';
import type { Place } from './place.ts';

/** A control plane, a node and an S3 server of this machine. */
export class OwnCluster implements Place {
  readonly storeName = `s3://${BUCKET}/`;
  #starting: Promise<World> | null = null;
  #world: World | null = null;

  get #started(): World {
    if (this.#world === null) throw new Error('the cluster is not started yet');
    return this.#world;
  }

  get cluster(): Cluster {
    return this.#started;
  }

  async start(tell: Narrator): Promise<void> {
    tell.chapter('A control plane, an S3 server and a node');
    const starting = World.start();
    this.#starting = starting;
    this.#world = await tell.timed(
      'etcd, API server, controllers, scheduler, S3 and node run',
      () => starting,
    );
  }

  applyCharts(): Promise<void> {
    return this.#started.applyCharts();
  }

  async store(name: string, { tensors, config }: AdapterFiles): Promise<object> {
    const { store } = this.#started;
    await store.put(BUCKET, `${name}/adapter_model.safetensors`, tensors);
    await store.put(BUCKET, `${name}/adapter_config.json`, config);
    return storedAdapter(name, store.endpoint);
  }

  async reach({ ip }: SeenPod, port: number): Promise<string> {
    return `http://${ip}:${port}`;
  }

  removePod(name: string): Promise<void> {
    return this.#started.node.removePodAbruptly(NAMESPACE, name);
  }

  tellPlaces(tell: Narrator): void {
    const { plane, store } = this.#started;
    tell.say(`export KUBECONFIG=${plane.kubeconfig}`);
    tell.say(`S3: ${store.endpoint}, access key ${store.accessKeyId}, secret key ${store.secretAccessKey}`);
  }

  async stop(): Promise<void> {
    const world = await this.#starting?.catch(() => null);
    await world?.stop();
  }
}
