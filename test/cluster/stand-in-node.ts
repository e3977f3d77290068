import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Api, isStatus } from './api.ts';
import { type AddressOf, createKubelet, type Kubelet } from './node/kubelet.ts';
import type { Image, Pod } from './node/manifest.ts';
import { type NodeContext, PodLife } from './node/pod-life.ts';
import { pause } from './node/probe.ts';
import { leaseOf, nodeObject } from './node/registration.ts';

export type { Image } from './node/manifest.ts';

export interface StandInNodeOptions {
  /** An administrator's, as control-plane.ts writes it: the node stands for kubelet and volume plugins at once. */
  kubeconfig: string;
  images: Record<string, Image>;
  name?: string;
  labels?: Record<string, string>;
  /** Added to what the node offers, for example `{'nvidia.com/gpu': '8'}`. */
  capacity?: Record<string, string>;
  /** The kubelet's 10 s doubled up to 300 s, unless a test is in a hurry. */
  backOff?: { baseMs: number; maxMs: number };
  /** How often mounted Secrets, ConfigMaps and tokens are looked at again. */
  refreshMs?: number;
  log?: (line: string) => void;
}

export interface StandInNode {
  readonly name: string;
  /** The container's output so far, of all its starts; also after the pod is gone. */
  logs(namespace: string, pod: string, container?: string): Promise<string>;
  /** SIGKILL from outside, as by the kernel: the container is restarted as its policy says. */
  kill(namespace: string, pod: string, container?: string): void;
  /** SIGSTOP: the pod hangs; its probes go on. */
  pause(namespace: string, pod: string): void;
  resume(namespace: string, pod: string): void;
  /** The pod is gone at once, process and object, without SIGTERM. */
  removePodAbruptly(namespace: string, pod: string): Promise<void>;
  /** Power off: every container dies, the folders go, the objects stay. */
  stop(): Promise<void>;
}

const LEASE_EVERY_MS = 10_000;
const RETRY_MS = 500;
const KUBELET_PORT = 10_250;
const ADDRESS_ATTEMPTS_MAX = 50;

/** Registers a node and runs the containers of the pods bound to it as processes of this machine. */
export async function startStandInNode(options: StandInNodeOptions): Promise<StandInNode> {
  let addressOf: AddressOf = () => null;
  const { guard, prefix } = await reserveAddresses((namespace, pod) => addressOf(namespace, pod));
  const dir = await mkdtemp(join(tmpdir(), 'lorikeet-node-'));
  const node = new Node(options, { api: await Api.fromKubeconfig(options.kubeconfig), guard, prefix, dir });
  addressOf = (namespace, pod) => node.addressOf(namespace, pod);
  try {
    await node.start();
  } catch (error) {
    await node.stop();
    throw error;
  }
  return node;
}

/** A 127.b.c.0/24 of our own: whoever holds the kubelet's port on its first address owns the block. */
async function reserveAddresses(addressOf: AddressOf): Promise<{ guard: Kubelet; prefix: string }> {
  for (let attempt = 0; attempt < ADDRESS_ATTEMPTS_MAX; attempt++) {
    const prefix = `127.${16 + Math.floor(Math.random() * 224)}.${Math.floor(Math.random() * 256)}`;
    const guard = createKubelet(addressOf);
    if (await guard.listen(KUBELET_PORT, `${prefix}.1`)) return { guard, prefix };
  }
  throw new Error('no block of loopback addresses is free; only Linux gives every 127.x.y.z without setup');
}

class Node implements StandInNode {
  readonly name: string;
  readonly #options: StandInNodeOptions;
  readonly #api: Api;
  readonly #guard: Kubelet;
  readonly #prefix: string;
  readonly #dir: string;
  readonly #context: NodeContext;
  readonly #stopping = new AbortController();
  /** By uid. */
  readonly #lives = new Map<string, { pod: Pod; life: PodLife; ending: boolean }>();
  readonly #endings = new Set<Promise<void>>();
  readonly #loops: Promise<void>[] = [];
  #nextAddress = 2;

  constructor(options: StandInNodeOptions, parts: { api: Api; guard: Kubelet; prefix: string; dir: string }) {
    this.#options = options;
    this.#api = parts.api;
    this.#guard = parts.guard;
    this.#prefix = parts.prefix;
    this.#dir = parts.dir;
    this.name = options.name ?? 'stand-in';
    this.#context = {
      api: parts.api,
      images: options.images,
      podsDir: join(parts.dir, 'pods'),
      logFileOf: ({ metadata }, container) => this.#logFile(metadata.namespace, metadata.name, container),
      hostIP: `${parts.prefix}.1`,
      backOff: options.backOff ?? { baseMs: 10_000, maxMs: 300_000 },
      refreshMs: options.refreshMs ?? 10_000,
      log: options.log ?? (() => {}),
    };
  }

  addressOf(namespace: string, name: string): string | null {
    const isIt = ({ metadata }: Pod) => metadata.namespace === namespace && metadata.name === name;
    return [...this.#lives.values()].find(({ pod }) => isIt(pod))?.life.podIP ?? null;
  }

  async start(): Promise<void> {
    await mkdir(join(this.#dir, 'logs'), { recursive: true });
    await this.#register();
    this.#loops.push(this.#renewLease(), this.#watchPods());
  }

  async #register(): Promise<void> {
    const { metadata, status } = nodeObject({
      name: this.name,
      address: this.#context.hostIP,
      kubeletPort: KUBELET_PORT,
      labels: this.#options.labels ?? {},
      capacity: this.#options.capacity ?? {},
    });
    await this.#create('/api/v1/nodes', { metadata });
    await this.#api.call('PATCH', `/api/v1/nodes/${this.name}/status`, { status });
    await this.#create('/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases', leaseOf(this.name));
  }

  async #create(path: string, body: object): Promise<void> {
    await this.#api.call('POST', path, body).catch((error: unknown) => {
      if (!isStatus(error, 409)) throw error;
    });
  }

  async #renewLease(): Promise<void> {
    const path = `/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/${this.name}`;
    while (!this.#stopping.signal.aborted) {
      await this.#api
        .call('PATCH', path, { spec: leaseOf(this.name).spec })
        .catch((error: unknown) => this.#complain(error));
      await pause(LEASE_EVERY_MS, this.#stopping.signal);
    }
  }

  async #watchPods(): Promise<void> {
    while (!this.#stopping.signal.aborted) {
      try {
        await this.#listAndWatch();
      } catch (error) {
        this.#complain(error);
      }
      await pause(RETRY_MS, this.#stopping.signal);
    }
  }

  async #listAndWatch(): Promise<void> {
    const path = `/api/v1/pods?fieldSelector=spec.nodeName%3D${this.name}`;
    const list = (await this.#api.get(path)) as { metadata: { resourceVersion: string }; items: Pod[] };
    const listed = new Set(list.items.map(({ metadata }) => metadata.uid));
    for (const [uid, { pod }] of this.#lives)
      if (!listed.has(uid)) this.#end(pod, { graceSeconds: 0, removeObject: false });
    for (const pod of list.items) this.#observe(pod);
    const since = `&watch=true&resourceVersion=${list.metadata.resourceVersion}`;
    for await (const { type, object } of this.#api.watch(path + since, this.#stopping.signal)) {
      if (type === 'ERROR') return;
      const pod = object as Pod;
      if (type === 'DELETED') this.#end(pod, { graceSeconds: 0, removeObject: false });
      else if (type !== 'BOOKMARK') this.#observe(pod);
    }
  }

  #observe(pod: Pod): void {
    const { uid, deletionTimestamp } = pod.metadata;
    const known = this.#lives.get(uid);
    if (known) {
      known.pod = pod;
      known.life.observe(pod);
    } else if (pod.status?.phase === 'Succeeded' || pod.status?.phase === 'Failed') {
      return;
    } else {
      const life = new PodLife(pod, this.#takeAddress(), this.#context);
      this.#lives.set(uid, { pod, life, ending: false });
      this.#context.log(`pod ${pod.metadata.namespace}/${pod.metadata.name} runs at ${life.podIP}`);
    }
    if (deletionTimestamp !== undefined) this.#end(pod, {});
  }

  #takeAddress(): string {
    const taken = new Set([...this.#lives.values()].map(({ life }) => life.podIP));
    for (let tries = 0; tries < 253; tries++) {
      const address = `${this.#prefix}.${this.#nextAddress}`;
      this.#nextAddress = this.#nextAddress === 254 ? 2 : this.#nextAddress + 1;
      if (!taken.has(address)) return address;
    }
    throw new Error(`node ${this.name} has no address left`);
  }

  /** A second call with less grace cuts the first one short. */
  #end({ metadata }: Pod, how: { graceSeconds?: number; removeObject?: boolean }): void {
    const entry = this.#lives.get(metadata.uid);
    if (!entry || (entry.ending && how.graceSeconds !== 0)) return;
    entry.ending = true;
    const ending: Promise<void> = entry.life
      .end(how)
      .catch((error: unknown) => this.#complain(error))
      .finally(() => {
        this.#lives.delete(metadata.uid);
        this.#endings.delete(ending);
      });
    this.#endings.add(ending);
  }

  async logs(namespace: string, pod: string, container?: string): Promise<string> {
    const name = container ?? this.#find(namespace, pod).pod.spec.containers[0]?.name ?? '';
    return await readFile(this.#logFile(namespace, pod, name), 'utf8');
  }

  #logFile(namespace: string, pod: string, container: string): string {
    return join(this.#dir, 'logs', `${namespace}_${pod}_${container}.log`);
  }

  kill(namespace: string, pod: string, container?: string): void {
    this.#find(namespace, pod).life.signal('SIGKILL', container);
  }

  pause(namespace: string, pod: string): void {
    this.#find(namespace, pod).life.signal('SIGSTOP');
  }

  resume(namespace: string, pod: string): void {
    this.#find(namespace, pod).life.signal('SIGCONT');
  }

  async removePodAbruptly(namespace: string, pod: string): Promise<void> {
    this.#end(this.#find(namespace, pod).pod, { graceSeconds: 0 });
    await Promise.all(this.#endings);
  }

  #find(namespace: string, name: string): { pod: Pod; life: PodLife } {
    const entries = [...this.#lives.values()];
    const found = entries.find(
      ({ pod }) => pod.metadata.namespace === namespace && pod.metadata.name === name,
    );
    if (!found) throw new Error(`no pod ${namespace}/${name} runs on node ${this.name}`);
    return found;
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await Promise.all(this.#loops);
    for (const { pod } of this.#lives.values()) this.#end(pod, { graceSeconds: 0, removeObject: false });
    await Promise.all(this.#endings);
    await this.#api.close();
    await this.#guard.stop();
    await rm(this.#dir, { recursive: true, force: true });
  }

  #complain(error: unknown): void {
    if (!this.#stopping.signal.aborted) this.#context.log(`node ${this.name}: ${error}`);
  }
}
