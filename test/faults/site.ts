import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Operator, startOperator } from '../../operator/app.ts';
import { parseConfig } from '../../operator/config.ts';
import { silentLog } from '../../operator/kube/log.ts';
import type { PodTimeouts } from '../../operator/pods/client.ts';
import { openDispatcher } from '../../operator/pods/dispatcher.ts';
import type { RangeLimits } from '../../operator/source/ranges.ts';
import type { Api } from '../cluster/api.ts';
import { FaultProxy } from '../operator/source/fault-proxy.ts';
import { eventually } from '../support/eventually.ts';
import { POD_TOKEN, ScriptedPod } from '../support/pod/scripted-pod.ts';
import { type ApiCall, type ApiPlan, ApiProxy } from './api-proxy.ts';
import { type CrashPoint, countingWrites, isWrite, WriteLog } from './crash.ts';
import { untruthsIn } from './truth.ts';

export const LORA = '/apis/lorikeet.dev/v1alpha1';
const POOL = 'parrot';
const STATUS_INTERVAL_MS = 200;
/** Ends only what never ends: a machine that does much else may need most of it. */
const PATIENCE_MS = 120_000;
/** Longer than it takes from any change to the last write that follows from it. */
const QUIET_MS = 1_000;

export interface World {
  api: Api;
  adminToken: string;
  /** Of a ServiceAccount that may push. */
  pushToken: string;
  /** An S3 endpoint with its keys. */
  store: { endpoint: string; accessKeyId: string; secretAccessKey: string; put: Put };
}
type Put = (bucket: string, key: string, bytes: Uint8Array) => Promise<string>;

export interface SiteOptions {
  /** Unique in the world; makes the namespace and the addresses of pods. */
  number: number;
  crash?: CrashPoint | null;
  plan?: ApiPlan;
  relistMs?: number;
  inactivityMs?: number;
  podTimeouts?: PodTimeouts;
  sourceRanges?: Partial<RangeLimits>;
  /** What becomes of each request to the object store. */
  storeFault?: FaultProxy['fault'];
}

interface Seen {
  status?: Record<string, unknown>;
}

interface Incarnation {
  operator: Promise<Operator>;
  /** Aborted by its end: nobody hears from it any more. */
  life: AbortSignal;
  /** Abruptly, as SIGKILL: nothing it does from then on is seen by anybody. */
  cut(): void;
}

/** One namespace with a pool of pods and an operator of its own, which is started anew whenever it crashes. */
export class Site {
  readonly namespace: string;
  readonly pods = new Map<string, ScriptedPod>();
  readonly writes: WriteLog;
  crashes = 0;
  /** Calls of trainers that were answered, but not with 200: each brings the bytes again. */
  refusals = 0;
  /** Why an operator gave up by itself. */
  readonly deaths: string[] = [];
  /** What status was to say, and was not so. */
  readonly untruths: string[] = [];
  readonly #everyPod: ScriptedPod[] = [];
  readonly #world: World;
  readonly #options: SiteOptions;
  readonly #dir = mkdtempSync(join(tmpdir(), 'lorikeet-faults-'));
  readonly #ended: Promise<unknown>[] = [];
  /** Where there are faults of the object store. */
  storeProxy: FaultProxy | null = null;
  readonly #objects = new Map<string, { bucket: string; bytes: Uint8Array }>();
  #storeEndpoint: string | null = null;
  #present: Incarnation | null = null;
  #port = 0;
  #spool = 0;
  #stopped = false;

  private constructor(world: World, options: SiteOptions) {
    this.#world = world;
    this.#options = options;
    this.namespace = `site-${options.number}`;
    this.writes = new WriteLog(options.crash ?? null, () => this.crash());
  }

  static async start(world: World, options: SiteOptions, pods: string[]): Promise<Site> {
    const site = new Site(world, options);
    await site.create('/api/v1/namespaces', { metadata: { name: site.namespace } });
    const { accessKeyId, secretAccessKey } = world.store;
    const core = `/api/v1/namespaces/${site.namespace}`;
    await Promise.all([
      site.create(`${core}/serviceaccounts`, { metadata: { name: 'default' } }),
      site.create(`${core}/secrets`, { metadata: { name: 'admin' }, stringData: { token: POD_TOKEN } }),
      site.create(`${core}/secrets`, {
        metadata: { name: 's3' },
        stringData: { accessKeyId, secretAccessKey },
      }),
    ]);
    for (const pod of pods) await site.addPod(pod);
    await site.create(site.path('serverpools'), {
      apiVersion: 'lorikeet.dev/v1alpha1',
      kind: 'ServerPool',
      metadata: { name: POOL },
      spec: {
        selector: { matchLabels: { app: POOL } },
        baseModel: { name: POOL },
        admin: { port: site.#port, auth: { tokenSecretRef: { name: 'admin' } } },
      },
    });
    await site.#between();
    await site.#launch();
    return site;
  }

  get #signal(): AbortSignal {
    return AbortSignal.timeout(PATIENCE_MS);
  }

  path(plural: string, name?: string): string {
    return `${LORA}/namespaces/${this.namespace}/${plural}${name === undefined ? '' : `/${name}`}`;
  }

  async create(path: string, body: object): Promise<void> {
    await this.#world.api.call('POST', path, body);
  }

  async addPod(name: string): Promise<void> {
    const { number } = this.#options;
    const host = `127.${20 + Math.floor(number / 200)}.${1 + (number % 200)}.${this.pods.size + 1}`;
    const pod = await ScriptedPod.start({ host, port: this.#port });
    this.#port = pod.port;
    this.pods.set(name, pod);
    this.#everyPod.push(pod);
    await this.#createPod(name, host);
  }

  async #createPod(name: string, host: string): Promise<void> {
    const path = `/api/v1/namespaces/${this.namespace}/pods`;
    await this.create(path, {
      metadata: { name, labels: { app: POOL } },
      spec: { containers: [{ name: 'server', image: 'none' }] },
    });
    await this.#tellAddress(name, host);
  }

  /** Another pod has its name and its address; what answers there stays as it is. */
  async replacePod(name: string): Promise<void> {
    const { host } = this.pods.get(name) as ScriptedPod;
    await this.#deletePod(name);
    await this.#createPod(name, host);
  }

  async #deletePod(name: string): Promise<void> {
    const path = `/api/v1/namespaces/${this.namespace}/pods/${name}`;
    await this.#world.api.call('DELETE', path, { gracePeriodSeconds: 0 });
  }

  /** Two pods have each other's address from now on; what answers there stays as it is. */
  async swapAddresses(one: string, other: string): Promise<void> {
    const [atOne, atOther] = [this.pods.get(one), this.pods.get(other)];
    if (atOne === undefined || atOther === undefined) throw new Error(`no pods ${one} and ${other}`);
    this.pods.set(one, atOther).set(other, atOne);
    await this.#tellAddress(one, atOther.host);
    await this.#tellAddress(other, atOne.host);
  }

  async #tellAddress(name: string, host: string): Promise<void> {
    await this.#world.api.call('PATCH', `/api/v1/namespaces/${this.namespace}/pods/${name}/status`, {
      status: { phase: 'Running', podIP: host, podIPs: [{ ip: host }] },
    });
  }

  async removePod(name: string): Promise<void> {
    await this.#deletePod(name);
    await this.pods.get(name)?.stop();
    this.pods.delete(name);
  }

  async get(plural: string, name: string): Promise<Seen | null> {
    try {
      return (await this.#world.api.get(this.path(plural, name))) as Seen;
    } catch (error) {
      if ((error as { status?: number }).status === 404) return null;
      throw error;
    }
  }

  async patch(plural: string, name: string, body: object): Promise<void> {
    await this.#world.api.call('PATCH', this.path(plural, name), body);
  }

  async remove(plural: string, name: string): Promise<void> {
    await this.#world.api.call('DELETE', this.path(plural, name));
  }

  /** Of the object store, as the operator sees it. */
  get storeEndpoint(): string {
    return this.#storeEndpoint ?? this.#world.store.endpoint;
  }

  /** Goes straight to the object store, and is what people want to be there. */
  async put(bucket: string, key: string, bytes: Uint8Array): Promise<void> {
    this.#objects.set(key, { bucket, bytes });
    await this.#world.store.put(bucket, key, bytes);
  }

  /** All of one name have other bytes for a while. */
  async overwrite(name: string, bytes: Uint8Array, forMs: number): Promise<{ restored: Promise<void> }> {
    const before = [...this.#objects].filter(([key]) => key.endsWith(name));
    const { store } = this.#world;
    for (const [key, { bucket }] of before) await store.put(bucket, key, bytes);
    const restore = async () => {
      await new Promise((resolve) => setTimeout(resolve, forMs));
      for (const [key, object] of before) await this.put(object.bucket, key, object.bytes);
    };
    return { restored: restore() };
  }

  async #between(): Promise<void> {
    const { storeFault } = this.#options;
    if (storeFault === undefined) return;
    this.storeProxy = new FaultProxy(this.#world.store.endpoint);
    this.storeProxy.fault = storeFault;
    this.#storeEndpoint = await this.storeProxy.listen();
  }

  /** Asks the operator that lives, again and again, as trainers do, until one answers with 200. */
  async ask(what: string, path: string, init: RequestInit): Promise<void> {
    await this.until(what, async () => {
      const present = this.#present;
      if (present === null) return undefined;
      const { listening } = await present.operator;
      const response = await fetch(`${listening.push}/v1/namespaces/${this.namespace}/adapters/${path}`, {
        ...init,
        headers: {
          ...(init.headers as Record<string, string>),
          authorization: `Bearer ${this.#world.pushToken}`,
          connection: 'close',
        },
        signal: AbortSignal.any([present.life, AbortSignal.timeout(10_000)]),
      });
      const text = await response.text();
      if (response.status !== 200) this.refusals += 1;
      if (response.status !== 200) throw new Error(`${response.status}: ${text}`);
      return true;
    });
  }

  async until<T>(what: string, attempt: () => Promise<T | undefined>): Promise<T> {
    return await eventually(what, { timeoutMs: PATIENCE_MS, everyMs: 50 }, attempt);
  }

  /** Resolves when nothing has been written for a while. */
  async untilQuiet(): Promise<void> {
    const signal = this.#signal;
    while (performance.now() - this.writes.lastAtMs < QUIET_MS) {
      if (signal.aborted) throw new Error(`writes do not end: ${this.writes.lines.slice(-8).join('\n')}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /** As SIGKILL, and a new process right after. */
  crash(): void {
    const dead = this.#present;
    this.#present = null;
    if (dead === null || this.#stopped) return;
    this.crashes += 1;
    dead.cut();
    this.#ended.push(dead.operator.then((operator) => operator.close()));
    this.#ended.push(this.#launch());
  }

  /** All that holds bytes and is no object store: the operator with its spool, and each pod. */
  async loseAll(): Promise<void> {
    this.#spool += 1;
    this.crash();
    await Promise.all([...this.pods.values()].map((pod) => pod.restart()));
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    const last = this.#present;
    this.#present = null;
    last?.cut();
    await Promise.all([...this.#ended, last?.operator.then((operator) => operator.close())]);
    await Promise.all([...this.pods.values()].map((pod) => pod.stop()));
    await this.storeProxy?.close();
    rmSync(this.#dir, { recursive: true, force: true });
  }

  async #launch(): Promise<void> {
    const { relistMs, inactivityMs, podTimeouts, sourceRanges } = this.#options;
    const proxy = await ApiProxy.start(this.#world.api, this.#counted());
    const agent = openDispatcher();
    const kubeconfig = join(this.#dir, `${this.crashes}.kubeconfig`);
    writeFileSync(kubeconfig, kubeconfigOf(proxy.url, this.#world.adminToken));
    const args = ['--push-host=127.0.0.1', '--push-port=0', '--metrics-host=127.0.0.1', '--metrics-port=0'];
    const own = [
      `--leader-namespace=${this.namespace}`,
      `--watch-namespace=${this.namespace}`,
      '--identity=one',
    ];
    const store = [
      `--spool-dir=${join(this.#dir, `spool-${this.#spool}`)}`,
      '--allow-endpoint-cidr=127.0.0.0/8',
    ];
    const config = parseConfig([...args, ...own, ...store], {});
    if (config === null) throw new Error('no help was asked for');
    const life = new AbortController();
    const die = (error: unknown, message: string) => {
      if (!life.signal.aborted) this.deaths.push(`${message}: ${error}`);
    };
    // Read before the first await of startOperator, so that operators of other sites do not mind.
    process.env.KUBECONFIG = kubeconfig;
    const operator = startOperator(config, silentLog, die, {
      dispatcher: countingWrites(agent, this.writes),
      watches: { ...(relistMs && { relistMs }), ...(inactivityMs && { inactivityMs }) },
      statusIntervalMs: STATUS_INTERVAL_MS,
      ...(podTimeouts && { podTimeouts }),
      ...(sourceRanges && { sourceRanges }),
    });
    const cut = () => {
      life.abort(new Error('the operator has crashed'));
      proxy.cut();
      void agent.destroy();
    };
    this.#present = { operator, life: life.signal, cut };
    await operator;
  }

  /** The plan of the site, with its writes counted first. */
  #counted(): ApiPlan {
    const { plan = {} } = this.#options;
    const numbers = new WeakMap<ApiCall, number>();
    return {
      ...plan,
      before: async (call) => {
        if (isWrite(call)) {
          const { number, isLost } = this.writes.begin(`api ${call.method} ${call.kind}`);
          numbers.set(call, number);
          this.untruths.push(...untruthsIn(call, this.#everyPod));
          if (isLost) return 'reset';
        }
        return (await plan.before?.(call)) ?? 'pass';
      },
      after: async (call, answer) => {
        const number = numbers.get(call);
        if (number !== undefined && this.writes.carriedOut(number)) return 'reset';
        return (await plan.after?.(call, answer)) ?? answer;
      },
    };
  }
}

function kubeconfigOf(server: string, token: string): string {
  return JSON.stringify({
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'test', cluster: { server } }],
    users: [{ name: 'operator', user: { token } }],
    contexts: [{ name: 'test', context: { cluster: 'test', user: 'operator' } }],
    'current-context': 'test',
  });
}
