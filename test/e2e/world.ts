import { randomBytes } from 'node:crypto';
import { join, resolve } from 'node:path';
import { type ControlPlane, startControlPlane } from '../cluster/control-plane.ts';
import { CHARTS, helmInstall } from '../cluster/helm.ts';
import { type ObjectStore, startObjectStore } from '../cluster/object-store.ts';
import { type StandInNode, startStandInNode } from '../cluster/stand-in-node.ts';
import { eventually } from '../support/eventually.ts';
import { parseAdapter, parsePod, type SeenAdapter, type SeenPod } from './objects.ts';

export const ROOT = resolve(import.meta.dirname, '../..');
export const PARROT = join(ROOT, 'test/fixtures/parrot');
export const SYSTEM = 'lorikeet-system';
export const NAMESPACE = 'models';
export const POOL = 'parrot';
const VOLUME = 'base-model';
const NODE = join(ROOT, 'node_modules/.bin/node');

/** What the pods of the pool serve. */
export interface BaseModel {
  /** As clients name it. */
  name: string;
  /** The Hugging Face folder. */
  folder: string;
  /** The chart's values for it, where its defaults will not do. */
  engine: { dtype?: string; kvBytes?: string; hostBytes?: string };
}

export const PARROT_MODEL: BaseModel = {
  name: POOL,
  folder: PARROT,
  // The golden tokens are those of float32.
  engine: { dtype: 'float32', kvBytes: '64Mi', hostBytes: '256Mi' },
};

export interface WorldOptions {
  /** The fixture model by default. */
  baseModel?: BaseModel;
  /** Server pods of the pool. */
  servers?: number;
  operators?: number;
  /** For a trainer that knows vLLM: pods speak it, and give log-probabilities as drawn. */
  forVllmTrainer?: boolean;
  log?: (line: string) => void;
}

export interface WorldParts<Node> {
  plane: ControlPlane;
  node: Node;
  store: ObjectStore;
  baseModel?: BaseModel;
  /** What the names of the node's images start with. */
  imagePrefix?: string;
  log?: (line: string) => void;
}

/** A cluster with both charts applied: a pool of server pods that hold one base model, and the operator. */
export class World<Node extends { stop(): Promise<void> } = StandInNode> {
  readonly plane: ControlPlane;
  readonly node: Node;
  readonly store: ObjectStore;
  readonly baseModel: BaseModel;
  readonly #imagePrefix: string;
  readonly #log: (line: string) => void;

  constructor(parts: WorldParts<Node>) {
    this.plane = parts.plane;
    this.node = parts.node;
    this.store = parts.store;
    this.baseModel = parts.baseModel ?? PARROT_MODEL;
    this.#imagePrefix = parts.imagePrefix ?? 'lorikeet-';
    this.#log = parts.log ?? (() => {});
  }

  /** Control plane, node and object store; nothing of ours yet. */
  static async start(options: WorldOptions = {}): Promise<World> {
    const { baseModel = PARROT_MODEL, log = () => {} } = options;
    const store = await startObjectStore();
    const plane = await startControlPlane({ controllers: true, log });
    const image = (program: string) => ({ entrypoint: [NODE, program], cwd: ROOT });
    const node = await startStandInNode({
      kubeconfig: plane.kubeconfig,
      images: {
        'lorikeet-operator:dev': image('operator/main.ts'),
        'lorikeet-server:dev': image('server/main.ts'),
      },
      backOff: { baseMs: 500, maxMs: 5_000 },
      refreshMs: 2_000,
      log,
    });
    return new World({ plane, node, store, baseModel, log });
  }

  /** Everything, ready to take adapters. */
  static async withPool(options: WorldOptions = {}): Promise<World> {
    const world = await World.start(options);
    try {
      await world.applyCharts(options);
      await world.untilPodsReady(options.servers ?? 2, options.operators ?? 1);
    } catch (error) {
      await world.stop();
      throw error;
    }
    return world;
  }

  async applyCharts(options: WorldOptions = {}): Promise<void> {
    for (const namespace of [SYSTEM, NAMESPACE]) {
      await this.apply({
        apiVersion: 'v1',
        kind: 'Namespace',
        metadata: { name: namespace, labels: { 'pod-security.kubernetes.io/enforce': 'restricted' } },
      });
    }
    const secret = { apiVersion: 'v1', kind: 'Secret' };
    await this.apply({
      ...secret,
      metadata: { name: 'parrot-admin', namespace: NAMESPACE },
      stringData: { token: randomBytes(32).toString('hex') },
    });
    await this.apply({
      ...secret,
      metadata: { name: 'adapters-s3', namespace: NAMESPACE },
      stringData: {
        accessKeyId: this.store.accessKeyId,
        secretAccessKey: this.store.secretAccessKey,
      },
    });
    for (const object of modelVolume(this.baseModel)) await this.apply(object);
    await this.applyOperator(options);
    await this.applyServers(options);
  }

  /** `more`: other values of its chart. */
  async applyOperator({ operators = 1 }: WorldOptions, more: object = {}): Promise<void> {
    await helmInstall(this.plane.kubeconfig, {
      chart: CHARTS.operator,
      namespace: SYSTEM,
      values: {
        image: { repository: `${this.#imagePrefix}operator`, tag: 'dev', pullPolicy: 'Never' },
        replicas: operators,
        // The store of most worlds is on the loopback.
        source: { allowedEndpointCidrs: ['127.0.0.0/8'] },
        ...more,
      },
    });
  }

  /** Also later, with another number of servers. */
  async applyServers(
    { servers = 2, forVllmTrainer = false }: WorldOptions,
    more: object = {},
  ): Promise<void> {
    await helmInstall(this.plane.kubeconfig, {
      chart: CHARTS.server,
      name: POOL,
      namespace: NAMESPACE,
      values: {
        fullnameOverride: POOL,
        image: { repository: `${this.#imagePrefix}server`, tag: 'dev', pullPolicy: 'Never' },
        replicas: servers,
        model: {
          name: this.baseModel.name,
          volume: { persistentVolumeClaim: { claimName: VOLUME, readOnly: true } },
        },
        admin: { tokenSecret: { name: 'parrot-admin' } },
        sourceSecrets: ['adapters-s3'],
        engine: {
          ...this.baseModel.engine,
          threads: 1,
          logprobsMode: forVllmTrainer ? 'processed' : 'raw',
        },
        vllmDialect: forVllmTrainer,
        resources: { requests: { cpu: '100m', memory: '256Mi' } },
        shutdown: { drainSeconds: 1, timeoutSeconds: 20 },
        ...more,
      },
    });
  }

  async apply(object: object): Promise<string> {
    return await this.plane.kubectl(['apply', '--server-side', '-f', '-'], JSON.stringify(object));
  }

  async untilPodsReady(servers: number, operators: number, timeoutMs = 90_000): Promise<void> {
    await eventually(
      `${servers} server pods and ${operators} operators are ready`,
      { timeoutMs },
      async () => {
        const ready = (pods: SeenPod[]) => pods.filter((pod) => pod.ready && !pod.terminating).length;
        const isDone = ready(await this.servers()) === servers && ready(await this.operators()) === operators;
        return isDone || undefined;
      },
    );
  }

  servers(): Promise<SeenPod[]> {
    return this.#pods(NAMESPACE, 'app.kubernetes.io/name=lorikeet-server');
  }

  operators(): Promise<SeenPod[]> {
    return this.#pods(SYSTEM, 'app.kubernetes.io/name=lorikeet');
  }

  async #pods(namespace: string, selector: string): Promise<SeenPod[]> {
    const text = await this.plane.kubectl(['get', 'pods', '-n', namespace, '-l', selector, '-o', 'json']);
    return (JSON.parse(text) as { items: unknown[] }).items.map(parsePod);
  }

  async adapter(name: string): Promise<SeenAdapter> {
    return parseAdapter(
      JSON.parse(await this.plane.kubectl(['get', 'loras', name, '-n', NAMESPACE, '-o', 'json'])),
    );
  }

  /** Waits for a condition of an adapter to have this status; returns the adapter as it is then. */
  async untilAdapter(
    name: string,
    what: string,
    holds: (adapter: SeenAdapter) => boolean,
    timeoutMs = 30_000,
  ): Promise<SeenAdapter> {
    let last: SeenAdapter | undefined;
    const wait = eventually(`adapter ${name} is ${what}`, { timeoutMs }, async () => {
      last = await this.adapter(name);
      return holds(last) ? last : undefined;
    });
    return await wait.catch((error: unknown) => {
      throw new Error(`${error}; it was ${JSON.stringify(last)}`, { cause: error });
    });
  }

  untilReady(name: string, digest?: string): Promise<SeenAdapter> {
    return this.untilAdapter(
      name,
      'Ready',
      (adapter) =>
        adapter.conditions.Ready?.status === 'True' &&
        adapter.observedGeneration === adapter.generation &&
        (digest === undefined || adapter.currentRevision === digest),
    );
  }

  /** A token of a ServiceAccount of the namespace, made where it is missing. */
  async tokenFor(account: string, audience: string, namespace = NAMESPACE): Promise<string> {
    await this.apply({
      apiVersion: 'v1',
      kind: 'ServiceAccount',
      metadata: { name: account, namespace },
    });
    const args = ['create', 'token', account, '-n', namespace, '--audience', audience];
    return (await this.plane.kubectl(args)).trim();
  }

  /** Lets an account push to the adapters of NAMESPACE. */
  async allowPush(account: string): Promise<void> {
    await this.apply({
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'RoleBinding',
      metadata: { name: `${account}-pushes`, namespace: NAMESPACE },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'lorikeet-pusher' },
      subjects: [{ kind: 'ServiceAccount', name: account, namespace: NAMESPACE }],
    });
  }

  async stop(): Promise<void> {
    this.#log('stopping');
    await this.node.stop();
    await this.plane.stop();
    await this.store.stop();
  }
}

/** The base model as a static volume, claimed by the pool's pods. */
function modelVolume({ folder }: BaseModel): object[] {
  const shared = { accessModes: ['ReadOnlyMany'], storageClassName: '' };
  return [
    {
      apiVersion: 'v1',
      kind: 'PersistentVolume',
      metadata: { name: VOLUME },
      spec: {
        ...shared,
        capacity: { storage: '4Gi' },
        hostPath: { path: folder },
        claimRef: { name: VOLUME, namespace: NAMESPACE },
      },
    },
    {
      apiVersion: 'v1',
      kind: 'PersistentVolumeClaim',
      metadata: { name: VOLUME, namespace: NAMESPACE },
      spec: { ...shared, resources: { requests: { storage: '4Gi' } }, volumeName: VOLUME },
    },
  ];
}
