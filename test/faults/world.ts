import { resolve } from 'node:path';
import { Api } from '../cluster/api.ts';
import { type ControlPlane, startControlPlane } from '../cluster/control-plane.ts';
import { type ObjectStore, startObjectStore } from '../cluster/object-store.ts';
import type { World } from './site.ts';

const CRDS = resolve(import.meta.dirname, '../../crds');
const TRAINERS = 'trainers';

/** One API server and one object store for all sites of a matrix. */
export class FaultWorld implements World {
  readonly api: Api;
  readonly adminToken: string;
  readonly pushToken: string;
  readonly store: ObjectStore;
  readonly #plane: ControlPlane;
  #sites = 0;

  private constructor(plane: ControlPlane, store: ObjectStore, api: Api, pushToken: string) {
    this.#plane = plane;
    this.store = store;
    this.api = api;
    this.adminToken = plane.adminToken;
    this.pushToken = pushToken;
  }

  static async start(): Promise<FaultWorld> {
    const [plane, store] = await Promise.all([startControlPlane(), startObjectStore()]);
    await plane.kubectl(['apply', '--server-side', '-f', CRDS]);
    await plane.kubectl(['wait', '--for=condition=Established', '--timeout=30s', 'crd', '--all']);
    await plane.kubectl(['create', 'namespace', TRAINERS]);
    await plane.kubectl(['-n', TRAINERS, 'create', 'serviceaccount', 'trainer']);
    const rights = ['--verb=update', '--resource=loraadapters.lorikeet.dev/tensors'];
    await plane.kubectl(['create', 'clusterrole', 'pusher', ...rights]);
    const binding = ['--clusterrole=pusher', `--serviceaccount=${TRAINERS}:trainer`];
    await plane.kubectl(['create', 'clusterrolebinding', 'pusher', ...binding]);
    const token = await plane.kubectl([
      ...['-n', TRAINERS, 'create', 'token', 'trainer'],
      '--audience=lorikeet-push',
    ]);
    return new FaultWorld(plane, store, await Api.fromKubeconfig(plane.kubeconfig), token.trim());
  }

  nextNumber(): number {
    this.#sites += 1;
    return this.#sites;
  }

  async stop(): Promise<void> {
    await this.api.close();
    await Promise.all([this.#plane.stop(), this.store.stop()]);
  }
}
