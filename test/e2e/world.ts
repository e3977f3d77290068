import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { stringify } from 'yaml';
import { type ControlPlane, runCommand, startControlPlane } from '../cluster/control-plane.ts';
import { eventually } from '../cluster/eventually.ts';
import { type ObjectStore, startObjectStore } from '../cluster/object-store.ts';
import { type StandInNode, startStandInNode } from '../cluster/stand-in-node.ts';
import { toolPath } from '../support/tools.ts';
import { parseAdapter, parsePod, type SeenAdapter, type SeenPod } from './objects.ts';

export const ROOT = resolve(import.meta.dirname, '../..');
export const PARROT = join(ROOT, 'test/fixtures/parrot');
export const SYSTEM = 'lorikeet-system';
export const NAMESPACE = 'models';
export const POOL = 'parrot';
const NODE = join(ROOT, 'node_modules/.bin/node');

export interface WorldOptions {
  /** Server pods of the pool. */
  servers?: number;
  operators?: number;
  /** More values for the chart of the pool. */
  serverValues?: Record<string, unknown>;
  log?: (line: string) => void;
}

/** A cluster with both charts applied: a pool of server pods that hold the fixture model, and the operator. */
export class World {
  readonly plane: ControlPlane;
  readonly node: StandInNode;
  readonly store: ObjectStore;
  readonly #dir: string;
  readonly #log: (line: string) => void;

  private constructor(parts: {
    plane: ControlPlane;
    node: StandInNode;
    store: ObjectStore;
    dir: string;
    log: (line: string) => void;
  }) {
    this.plane = parts.plane;
    this.node = parts.node;
    this.store = parts.store;
    this.#dir = parts.dir;
    this.#log = parts.log;
  }

  /** Control plane, node and object store; nothing of ours yet. */
  static async start(options: WorldOptions = {}): Promise<World> {
    const log = options.log ?? (() => {});
    const dir = await mkdtemp(join(tmpdir(), 'lorikeet-world-'));
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
    return new World({ plane, node, store, dir, log });
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
      stringData: { token: 'an admin token that only the pool and the operator know' },
    });
    await this.apply({
      ...secret,
      metadata: { name: 'adapters-s3', namespace: NAMESPACE },
      stringData: {
        accessKeyId: this.store.accessKeyId,
        secretAccessKey: this.store.secretAccessKey,
      },
    });
    for (const object of modelVolume()) await this.apply(object);
    await this.applyChart('lorikeet', 'lorikeet', SYSTEM, {
      image: { repository: 'lorikeet-operator', tag: 'dev', pullPolicy: 'Never' },
      replicas: options.operators ?? 1,
    });
    await this.applyServers(options);
  }

  async applyServers(options: WorldOptions): Promise<void> {
    await this.applyChart('lorikeet-server', POOL, NAMESPACE, {
      image: { repository: 'lorikeet-server', tag: 'dev', pullPolicy: 'Never' },
      replicas: options.servers ?? 2,
      ...options.serverValues,
    });
  }

  async applyChart(chart: string, release: string, namespace: string, values: object): Promise<void> {
    const valuesFile = join(this.#dir, `${chart}.yaml`);
    const base = await readFile(join(ROOT, 'test/e2e/values', `${chart}.yaml`), 'utf8');
    await writeFile(valuesFile, stringify(values));
    const baseFile = join(this.#dir, `${chart}.base.yaml`);
    await writeFile(baseFile, base);
    const args = ['template', release, join(ROOT, 'charts', chart), '--namespace', namespace];
    const rendered = await runCommand(toolPath('helm'), [
      ...args,
      '--include-crds',
      '--values',
      baseFile,
      '--values',
      valuesFile,
    ]);
    await this.applyText(rendered, ['--namespace', namespace]);
  }

  async apply(object: object): Promise<string> {
    return await this.applyText(JSON.stringify(object));
  }

  /** Kinds that a chart brings along are known a moment after their definitions, so it is tried again. */
  async applyText(text: string, args: string[] = []): Promise<string> {
    return await eventually('the manifests are accepted', { timeoutMs: 15_000, everyMs: 500 }, () =>
      this.plane.kubectl(['apply', '--server-side', '-f', '-', ...args], text),
    );
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
    await rm(this.#dir, { recursive: true, force: true });
  }
}

/** The fixture model as a static volume, claimed by the pool's pods. */
function modelVolume(): object[] {
  const shared = { accessModes: ['ReadOnlyMany'], storageClassName: '' };
  return [
    {
      apiVersion: 'v1',
      kind: 'PersistentVolume',
      metadata: { name: 'parrot-model' },
      spec: {
        ...shared,
        capacity: { storage: '1Gi' },
        hostPath: { path: PARROT },
        claimRef: { name: 'parrot-model', namespace: NAMESPACE },
      },
    },
    {
      apiVersion: 'v1',
      kind: 'PersistentVolumeClaim',
      metadata: { name: 'parrot-model', namespace: NAMESPACE },
      spec: { ...shared, resources: { requests: { storage: '1Gi' } }, volumeName: 'parrot-model' },
    },
  ];
}
