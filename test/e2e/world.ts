import { randomBytes } from 'node:crypto';
import { join, resolve } from 'node:path';
import { type ControlPlane, startControlPlane } from '../cluster/control-plane.ts';
import { CHARTS, helmInstall } from '../cluster/helm.ts';
import { type ObjectStore, startObjectStore } from '../cluster/object-store.ts';
import { type Image, type StandInNode, startStandInNode } from '../cluster/stand-in-node.ts';
import { Cluster } from './cluster.ts';

export const ROOT = resolve(import.meta.dirname, '../..');
export const PARROT = join(ROOT, 'test/fixtures/parrot');
export const SYSTEM = 'lorikeet-system';
export const NAMESPACE = 'models';
export const POOL = 'parrot';
const ATTACHED_IMAGE = 'vllm:dev';
const VOLUME = 'base-model';
const MONITOR = { kind: 'PodMonitor' };
const NODE = join(ROOT, 'node_modules/.bin/node');

/** What the pods of the pool serve. */
export interface BaseModel {
  /** As clients name it. */
  name: string;
  /** The Hugging Face folder. */
  folder: string;
  /** The chart's values for it, where its defaults will not do. */
  engine: Partial<Record<'dtype' | 'kvBytes' | 'hostBytes', string>> &
    Partial<Record<'slots' | 'maxBatch' | 'maxWaiting', number>>;
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
  /** Of the operator's spool; the chart's default where it is absent. */
  spoolBytes?: string;
  /** For a trainer that knows vLLM: pods speak it, and give log-probabilities as drawn. */
  forVllmTrainer?: boolean;
  /** With what tells a Prometheus operator and Grafana of it; the former's definitions must be there. */
  observed?: boolean;
  /** Pods with an engine of another project beside the server. */
  attached?: AttachedEngine;
  log?: (line: string) => void;
}

/** How the container of that engine runs on the node; its image is ATTACHED_IMAGE. */
export interface AttachedEngine {
  kind: 'vllm' | 'sglang';
  image: Image;
  /** Besides those of the chart. */
  args?: string[];
  env?: { name: string; value: string }[];
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
export class World<Node extends { stop(): Promise<void> } = StandInNode> extends Cluster {
  readonly plane: ControlPlane;
  readonly node: Node;
  readonly store: ObjectStore;
  readonly baseModel: BaseModel;
  readonly #imagePrefix: string;
  readonly #log: (line: string) => void;

  constructor(parts: WorldParts<Node>) {
    super((args, input) => parts.plane.kubectl(args, input), { system: SYSTEM, models: NAMESPACE });
    this.plane = parts.plane;
    this.node = parts.node;
    this.store = parts.store;
    this.baseModel = parts.baseModel ?? PARROT_MODEL;
    this.#imagePrefix = parts.imagePrefix ?? 'lorikeet-';
    this.#log = parts.log ?? (() => {});
  }

  /** Control plane, node and object store; nothing of ours yet. */
  static async start(options: WorldOptions = {}): Promise<World> {
    const { baseModel = PARROT_MODEL, attached, log = () => {} } = options;
    const store = await startObjectStore();
    const plane = await startControlPlane({ controllers: true, log });
    const image = (program: string) => ({ entrypoint: [NODE, program], cwd: ROOT });
    const node = await startStandInNode({
      kubeconfig: plane.kubeconfig,
      images: {
        'lorikeet-operator:dev': image('operator/main.ts'),
        'lorikeet-server:dev': image('server/main.ts'),
        ...(attached && { [ATTACHED_IMAGE]: attached.image }),
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
  async applyOperator(
    { operators = 1, observed, spoolBytes }: WorldOptions,
    more: object = {},
  ): Promise<void> {
    await helmInstall(this.plane.kubeconfig, {
      chart: CHARTS.operator,
      namespace: SYSTEM,
      values: {
        image: { repository: `${this.#imagePrefix}operator`, tag: 'dev', pullPolicy: 'Never' },
        replicas: operators,
        ...(spoolBytes === undefined ? {} : { spool: { bytes: spoolBytes } }),
        // The store of most worlds is on the loopback.
        source: { allowedEndpointCidrs: ['127.0.0.0/8'] },
        ...(observed && { metrics: { monitor: MONITOR }, dashboards: { enabled: true } }),
        ...more,
      },
    });
  }

  /** Also later, with another number of servers. */
  async applyServers(
    { servers = 2, forVllmTrainer = false, observed, attached }: WorldOptions,
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
          ...(attached && { kind: attached.kind }),
        },
        ...(attached && { attached: valuesOf(attached) }),
        vllmDialect: forVllmTrainer,
        ...(observed && { metrics: { monitor: MONITOR } }),
        resources: { requests: { cpu: '100m', memory: '256Mi' }, limits: { memory: '1Gi' } },
        shutdown: { drainSeconds: 1, timeoutSeconds: 20 },
        ...more,
      },
    });
  }

  async stop(): Promise<void> {
    this.#log('stopping');
    await this.node.stop();
    await this.plane.stop();
    await this.store.stop();
  }
}

/** Of the image, whose entry point is what runs. */
function valuesOf({ args = [], env = [] }: AttachedEngine): object {
  const resources = { requests: { cpu: '100m', memory: '256Mi' } };
  return { image: ATTACHED_IMAGE, command: [], args, env, resources };
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
