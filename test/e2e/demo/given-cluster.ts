import { createHash, randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { runCommand } from '../../cluster/command.ts';
import { CHARTS } from '../../cluster/helm.ts';
import { eventually } from '../../support/eventually.ts';
import { commandPath } from '../../support/tools.ts';
import type { AdapterFiles } from '../client.ts';
import { Cluster } from '../cluster.ts';
import { loraAdapter } from '../manifests.ts';
import type { Narrator } from '../narrator.ts';
import { parsePod, type SeenPod } from '../objects.ts';
import { PARROT_MODEL, POOL } from '../world.ts';
import { type DemoImages, referenceOf, repositoryOf } from './images.ts';
import type { Place } from './place.ts';
import { Reach } from './reach.ts';

const SYSTEM = 'lorikeet-demo-system';
const MODELS = 'lorikeet-demo';
const NAMESPACES = { system: SYSTEM, models: MODELS };
const WEB_PORT = 8080;
const CRDS = ['loraadapters.lorikeet.dev', 'serverpools.lorikeet.dev'];
const PULL_TIMEOUT_MS = 300_000;
const DELETE_TIMEOUT = '120s';

export interface GivenClusterOptions {
  context: string;
  /** As kubectl finds it, where none is named. */
  kubeconfig: string | undefined;
  images: DemoImages;
  /** Leaves what was made. */
  keep: boolean;
}

/** Somebody's cluster: two namespaces of it and the definitions are made, and removed at the end. */
export class GivenCluster implements Place {
  readonly storeName = 'A web server in the cluster';
  readonly cluster: Cluster;
  readonly #options: GivenClusterOptions;
  readonly #reach: Reach;
  readonly #webAddresses: string[] = [];
  #hasBegun = false;

  constructor(options: GivenClusterOptions) {
    this.#options = options;
    const kubectl = commandPath('kubectl');
    const target = [`--context=${options.context}`, ...this.#kubeconfig()];
    this.cluster = new Cluster(
      (args, input) => runCommand(kubectl, [...target, ...args], { input }),
      NAMESPACES,
    );
    this.#reach = new Reach(kubectl, target);
  }

  async start(tell: Narrator): Promise<void> {
    tell.chapter(`Two namespaces and a web server in the cluster of context "${this.#options.context}"`);
    await this.#refuseWhatIsThere();
    this.#hasBegun = true;
    for (const name of [SYSTEM, MODELS]) {
      const labels = { 'pod-security.kubernetes.io/enforce': 'restricted' };
      await this.cluster.apply({ apiVersion: 'v1', kind: 'Namespace', metadata: { name, labels } });
    }
    const metadata = { name: 'parrot-admin', namespace: MODELS };
    const stringData = { token: randomBytes(32).toString('hex') };
    await this.cluster.apply({ apiVersion: 'v1', kind: 'Secret', metadata, stringData });
  }

  async applyCharts(): Promise<void> {
    const image = (name: 'lorikeet-operator' | 'lorikeet-server') => ({
      repository: repositoryOf(this.#options.images, name),
      tag: this.#options.images.tag,
    });
    await this.#install('lorikeet', CHARTS.operator, SYSTEM, {
      image: image('lorikeet-operator'),
      replicas: 1,
      crds: { keep: false },
      // Needed where pods have addresses of the loopback.
      source: {
        allowedEndpointCidrs: this.#webAddresses.map((ip) => `${ip}/${ip.includes(':') ? 128 : 32}`),
      },
    });
    await this.#install(POOL, CHARTS.server, MODELS, {
      fullnameOverride: POOL,
      image: image('lorikeet-server'),
      replicas: 2,
      model: {
        name: PARROT_MODEL.name,
        volume: { image: { reference: referenceOf(this.#options.images, 'lorikeet-parrot') } },
      },
      operator: { namespace: SYSTEM },
      admin: { tokenSecret: { name: 'parrot-admin' } },
      engine: { ...PARROT_MODEL.engine, threads: 1 },
      resources: { requests: { cpu: '100m', memory: '256Mi' } },
      shutdown: { drainSeconds: 1, timeoutSeconds: 20 },
    });
  }

  /** A pod serves each adapter from a ConfigMap, by the Node of the server's image. */
  async store(name: string, { tensors, config }: AdapterFiles): Promise<object> {
    const web = { name: `web-${name}`, namespace: MODELS };
    const script = await readFile(join(import.meta.dirname, 'serve.mjs'), 'utf8');
    const binaryData = {
      'adapter_model.safetensors': tensors.toString('base64'),
      'adapter_config.json': config.toString('base64'),
    };
    const data = { 'serve.mjs': script };
    await this.cluster.apply({ apiVersion: 'v1', kind: 'ConfigMap', metadata: web, binaryData, data });
    await this.cluster.apply({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: web,
      spec: webPod(referenceOf(this.#options.images, 'lorikeet-server'), web.name),
    });
    const ip = await this.#untilReady(web.name);
    this.#webAddresses.push(ip);
    const host = ip.includes(':') ? `[${ip}]` : ip;
    const url = `http://${host}:${WEB_PORT}/adapter_model.safetensors`;
    const sha256 = createHash('sha256').update(tensors).digest('hex');
    return loraAdapter(name, { http: { url, sha256 } }, {}, MODELS);
  }

  reach(pod: SeenPod, port: number): Promise<string> {
    const isOperator = pod.name.startsWith('lorikeet-');
    return this.#reach.url(pod, isOperator ? SYSTEM : MODELS, port);
  }

  async removePod(name: string): Promise<void> {
    await this.cluster.kubectl(['delete', 'pod', name, '-n', MODELS, '--grace-period=0', '--force']);
  }

  tellPlaces(tell: Narrator): void {
    tell.say(`kubectl --context ${this.#options.context} -n ${MODELS} get serverpools,loras,pods`);
  }

  /** In the order that charts/README.md names: adapters, pool, operator. */
  async stop(tell: Narrator): Promise<void> {
    this.#reach.close();
    if (!this.#hasBegun) return;
    if (this.#options.keep) {
      tell.say(`kept: the namespaces ${MODELS} and ${SYSTEM}, and the definitions ${CRDS.join(' and ')}`);
      return;
    }
    await tell.timed('everything that the story made is removed', () => this.#remove());
  }

  async #remove(): Promise<void> {
    const gone = ['--ignore-not-found', '--timeout', DELETE_TIMEOUT];
    if (await this.#hasDefinitions())
      await this.cluster.kubectl(['delete', 'loras', '--all', '-n', MODELS, ...gone]);
    for (const [release, namespace] of [
      [POOL, MODELS],
      ['lorikeet', SYSTEM],
    ] as const) {
      await this.#helm(['uninstall', release, '-n', namespace, '--ignore-not-found', '--wait']);
    }
    await this.cluster.kubectl(['delete', 'namespace', MODELS, SYSTEM, ...gone]);
    await this.cluster.kubectl(['delete', 'crd', ...CRDS, ...gone]);
  }

  /** What is somebody else's would be mixed up with the story's, and removed with it. */
  async #refuseWhatIsThere(): Promise<void> {
    const args = ['--ignore-not-found', '-o', 'name'];
    const found = [
      await this.cluster.kubectl(['get', 'crd', ...CRDS, ...args]),
      await this.cluster.kubectl(['get', 'namespace', MODELS, SYSTEM, ...args]),
    ].flatMap((names) => names.split('\n').filter(Boolean));
    if (found.length === 0) return;
    throw new Error(
      `the cluster has ${found.join(', ')} already; the story makes its own and removes them. ` +
        'Remove these first, if they are left of an earlier story, or take another cluster',
    );
  }

  async #hasDefinitions(): Promise<boolean> {
    return (await this.cluster.kubectl(['get', 'crd', ...CRDS, '--ignore-not-found', '-o', 'name'])) !== '';
  }

  async #install(release: string, chart: string, namespace: string, values: object): Promise<void> {
    await this.#helm(
      ['upgrade', '--install', release, chart, '-n', namespace, '-f', '-'],
      JSON.stringify(values),
    );
  }

  #helm(args: string[], input?: string): Promise<string> {
    const target = [`--kube-context=${this.#options.context}`, ...this.#kubeconfig()];
    return runCommand(commandPath('helm'), [...args, ...target], { input });
  }

  #kubeconfig(): string[] {
    return this.#options.kubeconfig === undefined ? [] : [`--kubeconfig=${this.#options.kubeconfig}`];
  }

  async #untilReady(pod: string): Promise<string> {
    return await eventually(`pod ${pod} is ready`, { timeoutMs: PULL_TIMEOUT_MS }, async () => {
      const text = await this.cluster.kubectl(['get', 'pod', pod, '-n', MODELS, '-o', 'json']);
      const { ready, ip } = parsePod(JSON.parse(text));
      return ready ? ip : undefined;
    });
  }
}

function webPod(image: string, configMap: string): object {
  return {
    automountServiceAccountToken: false,
    terminationGracePeriodSeconds: 0,
    securityContext: { runAsNonRoot: true, seccompProfile: { type: 'RuntimeDefault' } },
    containers: [
      {
        name: 'web',
        image,
        command: ['node', '/adapter/serve.mjs', String(WEB_PORT)],
        env: [{ name: 'POD_IP', valueFrom: { fieldRef: { fieldPath: 'status.podIP' } } }],
        ports: [{ containerPort: WEB_PORT }],
        readinessProbe: { httpGet: { path: '/adapter_config.json', port: WEB_PORT }, periodSeconds: 1 },
        resources: { requests: { cpu: '10m', memory: '64Mi' } },
        securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ['ALL'] } },
        volumeMounts: [{ name: 'adapter', mountPath: '/adapter', readOnly: true }],
      },
    ],
    volumes: [{ name: 'adapter', configMap: { name: configMap } }],
  };
}
