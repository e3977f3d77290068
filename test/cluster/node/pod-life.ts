import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { V1Container } from '@kubernetes/client-node';
import { type Api, isStatus } from '../api.ts';
import { claimPath, readData, requestToken } from './cluster-data.ts';
import { Container } from './container.ts';
import type { Surroundings } from './environment.ts';
import { folderOf, type Image, NotStartable, type Pod, timestamp } from './manifest.ts';
import { podStatus } from './pod-status.ts';
import { pause } from './probe.ts';
import { Volumes } from './volumes.ts';

export interface NodeContext {
  api: Api;
  images: Record<string, Image>;
  /** Folders of the pods. */
  podsDir: string;
  logFileOf(pod: Pod, container: string): string;
  hostIP: string;
  backOff: { baseMs: number; maxMs: number };
  refreshMs: number;
  log(line: string): void;
}

const RETRY_MS = 500;
const GRACE_SECONDS_DEFAULT = 30;

/** A pod on this node, from its binding to its end. */
export class PodLife {
  #pod: Pod;
  readonly podIP: string;
  readonly #node: NodeContext;
  readonly #dir: string;
  readonly #volumes: Volumes;
  readonly #ending = new AbortController();
  readonly #startTime = timestamp();
  #initContainers: Container[] = [];
  #containers: Container[] = [];
  #initialized = false;
  #setup: string | null = 'volumes are being prepared';
  #reporting: Promise<void> | null = null;
  #reportAgain = false;
  #gone = false;
  #running: Promise<void>;

  constructor(pod: Pod, podIP: string, node: NodeContext) {
    this.#pod = pod;
    this.podIP = podIP;
    this.#node = node;
    this.#dir = join(node.podsDir, pod.metadata.uid);
    this.#volumes = new Volumes(join(this.#dir, 'volumes'), {
      ...this.#surroundings(),
      requestToken: (audience, seconds) => requestToken(node.api, pod, { audience, seconds }),
      claimPath: (claim) => claimPath(node.api, pod.metadata.namespace, claim),
      imagePath: (reference) => folderOf(node.images[reference], reference),
    });
    this.#running = this.#live().catch((error: unknown) => node.log(`pod ${this.#name}: ${error}`));
  }

  get #name(): string {
    return `${this.#pod.metadata.namespace}/${this.#pod.metadata.name}`;
  }

  /** A newer version of the object. */
  observe(pod: Pod): void {
    this.#pod = pod;
    if ((pod.spec.readinessGates ?? []).length > 0) this.#report();
  }

  async #live(): Promise<void> {
    await this.#prepare();
    if (this.#ending.signal.aborted) return;
    const { initContainers = [], containers, restartPolicy = 'Always' } = this.#pod.spec;
    // The containers are reported as waiting while the init containers run.
    this.#containers = await Promise.all(
      containers.map((container) => this.#container(container, restartPolicy)),
    );
    for (const container of initContainers) {
      const init = await this.#container(container, restartPolicy === 'Never' ? 'Never' : 'OnFailure');
      if (this.#ending.signal.aborted) return;
      this.#initContainers.push(init);
      const exitCode = await init.run();
      if (exitCode !== 0 || this.#ending.signal.aborted) return;
    }
    if (this.#ending.signal.aborted) return;
    this.#initialized = true;
    this.#report();
    await Promise.all([this.#refresh(), ...this.#containers.map((container) => container.run())]);
  }

  async #prepare(): Promise<void> {
    while (!this.#ending.signal.aborted) {
      try {
        await this.#volumes.prepare();
        this.#setup = null;
        this.#report();
        return;
      } catch (error) {
        if (!(error instanceof NotStartable)) this.#node.log(`pod ${this.#name}: ${error}`);
        this.#setup = error instanceof Error ? error.message : String(error);
        this.#report();
      }
      await pause(RETRY_MS, this.#ending.signal);
    }
  }

  async #refresh(): Promise<void> {
    const over = this.#ending.signal;
    while (!over.aborted) {
      await pause(this.#node.refreshMs, over);
      if (over.aborted) return;
      await this.#volumes
        .refresh()
        .catch((error: unknown) => this.#node.log(`pod ${this.#name}: refresh: ${error}`));
    }
  }

  async #container(container: V1Container, restart: string): Promise<Container> {
    const scratch = join(this.#dir, 'scratch', container.name);
    await mkdir(scratch, { recursive: true });
    return new Container({
      container,
      image: this.#node.images[container.image ?? ''],
      restart: restart as 'Always' | 'OnFailure' | 'Never',
      graceSeconds: this.#graceSeconds(),
      surroundings: this.#surroundings(),
      mounts: this.#volumes.mountsOf(container),
      scratch,
      logFile: this.#node.logFileOf(this.#pod, container.name),
      kubeconfigFor: (folder) => this.#writeKubeconfig(folder),
      backOff: this.#node.backOff,
      onChange: () => this.#report(),
      log: (line) => this.#node.log(`pod ${this.#name}: ${line}`),
    });
  }

  #graceSeconds(): number {
    return (
      this.#pod.metadata.deletionGracePeriodSeconds ??
      this.#pod.spec.terminationGracePeriodSeconds ??
      GRACE_SECONDS_DEFAULT
    );
  }

  /** Ends the containers within the grace and, where the object is still there, removes it as the kubelet does. */
  async end({ graceSeconds = this.#graceSeconds(), removeObject = true } = {}): Promise<void> {
    this.#ending.abort();
    this.#report();
    const all = [...this.#initContainers, ...this.#containers];
    await Promise.all(all.map((container) => container.stop(graceSeconds)));
    await this.#running;
    await this.#reporting;
    if (removeObject) await this.#removeObject();
    this.#gone = true;
    await rm(this.#dir, { recursive: true, force: true });
  }

  async #removeObject(): Promise<void> {
    const body = { gracePeriodSeconds: 0, preconditions: { uid: this.#pod.metadata.uid } };
    await this.#node.api.call('DELETE', this.#path(), body).catch((error: unknown) => {
      if (!isStatus(error, 404) && !isStatus(error, 409)) throw error;
    });
  }

  signal(signal: NodeJS.Signals, containerName?: string): void {
    const chosen = this.#containers.filter(
      ({ name }) => containerName === undefined || name === containerName,
    );
    if (chosen.length === 0) throw new Error(`pod ${this.#name} has no container ${containerName}`);
    for (const container of chosen) container.signal(signal);
  }

  /** One write at a time, the last state wins. */
  #report(): void {
    if (this.#gone) return;
    if (this.#reporting) {
      this.#reportAgain = true;
      return;
    }
    this.#reporting = this.#writeStatus().then(() => {
      this.#reporting = null;
      if (!this.#reportAgain) return;
      this.#reportAgain = false;
      this.#report();
    });
  }

  async #writeStatus(): Promise<void> {
    const status = podStatus({
      pod: this.#pod,
      podIP: this.podIP,
      hostIP: this.#node.hostIP,
      startTime: this.#startTime,
      initContainers: this.#initContainers,
      containers: this.#containers,
      initialized: this.#initialized,
      terminating: this.#ending.signal.aborted,
      setup: this.#setup,
    });
    const metadata = { uid: this.#pod.metadata.uid };
    try {
      this.#pod = (await this.#node.api.call('PATCH', `${this.#path()}/status`, { metadata, status })) as Pod;
    } catch (error) {
      if (isStatus(error, 404) || isStatus(error, 409)) return;
      this.#node.log(`pod ${this.#name}: status: ${error}`);
      await pause(RETRY_MS, this.#ending.signal);
      this.#reportAgain = !this.#ending.signal.aborted;
    }
  }

  #path(): string {
    return `/api/v1/namespaces/${this.#pod.metadata.namespace}/pods/${this.#pod.metadata.name}`;
  }

  #surroundings(): Surroundings {
    const { namespace } = this.#pod.metadata;
    return {
      pod: this.#pod,
      podIP: this.podIP,
      hostIP: this.#node.hostIP,
      readData: (kind, name) => readData(this.#node.api, `/api/v1/namespaces/${namespace}/${kind}/${name}`),
    };
  }

  async #writeKubeconfig(folder: string): Promise<string> {
    const path = join(this.#dir, 'kubeconfig');
    const { url, ca } = this.#node.api;
    const cluster = { server: url, 'certificate-authority-data': ca.toString('base64') };
    const config = {
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [{ name: 'cluster', cluster }],
      users: [{ name: 'pod', user: { tokenFile: join(folder, 'token') } }],
      contexts: [
        {
          name: 'pod',
          context: { cluster: 'cluster', user: 'pod', namespace: this.#pod.metadata.namespace },
        },
      ],
      'current-context': 'pod',
    };
    await writeFile(path, JSON.stringify(config, null, 2), { mode: 0o600 });
    return path;
  }
}
