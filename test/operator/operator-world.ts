import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { type ControlPlane, startControlPlane } from '../cluster/control-plane.ts';
import { type RunningProcess, startProcess } from '../cluster/process.ts';
import { goodAdapter } from '../support/adapter-files.ts';
import { eventually } from '../support/eventually.ts';
import { POD_TOKEN, ScriptedPod } from '../support/pod/scripted-pod.ts';
import { kubePod, NAMESPACE, serverPool } from './adapter/objects.ts';

export const ROOT = resolve(import.meta.dirname, '../..');
const NODE = join(ROOT, 'node_modules/.bin/node');
export const PATIENCE = { timeoutMs: 20_000 };
const GRACE_MS = 10_000;

export interface OperatorProcess {
  identity: string;
  process: RunningProcess;
  push: string;
  metrics: string;
}

interface PushOrder {
  adapter?: string;
  seed: number;
  step?: number;
}

/** A real API server, pods with the real admin API, and operators as processes. */
export class OperatorWorld {
  readonly plane: ControlPlane;
  readonly pods: ScriptedPod[];
  readonly #dir = mkdtempSync(join(tmpdir(), 'lorikeet-test-'));
  readonly #operators: RunningProcess[] = [];
  readonly #tokens = new Map<string, string>();

  private constructor(plane: ControlPlane, pods: ScriptedPod[]) {
    this.plane = plane;
    this.pods = pods;
  }

  /** `network`: the first three bytes of the pods' addresses, another one for each test file. */
  static async start({
    network,
    audit = false,
  }: {
    network: string;
    audit?: boolean;
  }): Promise<OperatorWorld> {
    const plane = await startControlPlane({ audit });
    const first = await ScriptedPod.start({ host: `${network}.1` });
    const pods = [first, await ScriptedPod.start({ host: `${network}.2`, port: first.port })];
    const world = new OperatorWorld(plane, pods);
    await world.#prepare();
    return world;
  }

  async stop(): Promise<void> {
    for (const operator of this.#operators) {
      operator.kill('SIGCONT');
      await operator.stop(GRACE_MS);
    }
    await Promise.all(this.pods.map((pod) => pod.stop()));
    await this.plane.stop();
    rmSync(this.#dir, { recursive: true, force: true });
  }

  kubectl(...args: string[]): Promise<string> {
    return this.plane.kubectl(args);
  }

  lora(path: string, name = 'policy'): Promise<string> {
    return this.kubectl('-n', NAMESPACE, 'get', 'lora', name, '-o', `jsonpath=${path}`);
  }

  /** As people write it: the API server gives what they leave out. */
  async apply(...objects: { metadata: object }[]): Promise<void> {
    for (const object of objects) {
      const {
        uid: _uid,
        resourceVersion: _version,
        ...metadata
      } = object.metadata as Record<string, unknown>;
      await this.plane.kubectl(['apply', '-f', '-'], JSON.stringify({ ...object, metadata }));
    }
  }

  /** With an account of its own, so that the audit log tells operators apart. */
  async startOperator(identity: string): Promise<OperatorProcess> {
    const logFile = join(this.#dir, `${identity}.log`);
    const hosts = ['--push-host', '127.0.0.1', '--push-port', '0'];
    const metricsHost = ['--metrics-host', '127.0.0.1', '--metrics-port', '0'];
    const own = ['--identity', identity, '--spool-dir', join(this.#dir, identity)];
    const process_ = await startProcess({
      command: NODE,
      args: [
        join(ROOT, 'operator/main.ts'),
        ...hosts,
        ...metricsHost,
        ...own,
        '--advertise-host',
        '127.0.0.1',
      ],
      logFile,
      env: { ...process.env, KUBECONFIG: await this.#kubeconfigOf(identity) },
    });
    this.#operators.push(process_);
    const listening = await eventually(`${identity} listens`, PATIENCE, () => {
      const line = readFileSync(logFile, 'utf8').match(/^\{"listening".*$/m)?.[0];
      return line === undefined
        ? undefined
        : (JSON.parse(line).listening as { push: string; metrics: string });
    });
    return { identity, process: process_, ...listening };
  }

  async leaderIs(identity: string, timeoutMs = PATIENCE.timeoutMs): Promise<void> {
    const path = 'jsonpath={.spec.holderIdentity}';
    await eventually(`${identity} leads`, { timeoutMs, everyMs: 50 }, async () => {
      const holder = await this.kubectl('-n', 'default', 'get', 'lease', 'lorikeet-operator', '-o', path);
      return holder === identity ? true : undefined;
    });
  }

  /** What each log line of that operator says, oldest first. */
  logOf({ identity }: OperatorProcess): { msg: string; [field: string]: unknown }[] {
    const lines = readFileSync(join(this.#dir, `${identity}.log`), 'utf8').split('\n');
    return lines.flatMap((line) => (line.startsWith('{"level"') ? [JSON.parse(line)] : []));
  }

  async bearerOf(account: string): Promise<string> {
    const known = this.#tokens.get(account);
    if (known !== undefined) return known;
    const audience = ['--audience', 'lorikeet-push'];
    const token = await this.kubectl('-n', NAMESPACE, 'create', 'token', account, ...audience);
    const bearer = `Bearer ${token.trim()}`;
    this.#tokens.set(account, bearer);
    return bearer;
  }

  async push(base: string, { adapter = 'policy', seed, step }: PushOrder): Promise<Response> {
    const { tensors, config } = goodAdapter(seed);
    return await fetch(`${base}/v1/namespaces/${NAMESPACE}/adapters/${adapter}/revisions`, {
      method: 'PUT',
      headers: {
        authorization: await this.bearerOf('trainer'),
        'x-lora-config': config.toString('base64url'),
        ...(step !== undefined && { 'x-lora-step': String(step) }),
      },
      body: new Uint8Array(tensors),
    });
  }

  async rollback(
    base: string,
    body: object,
    account = 'trainer',
  ): Promise<{ status: number; body: unknown }> {
    const response = await fetch(`${base}/v1/namespaces/${NAMESPACE}/adapters/policy/rollback`, {
      method: 'POST',
      headers: { authorization: await this.bearerOf(account), 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    return { status: response.status, body: await response.json() };
  }

  async #prepare(): Promise<void> {
    const within = ['-n', NAMESPACE];
    await this.kubectl('apply', '--server-side', '-f', join(ROOT, 'crds'));
    await this.kubectl('wait', '--for=condition=Established', '--timeout=30s', 'crd', '--all');
    await this.kubectl('create', 'namespace', NAMESPACE);
    for (const account of ['default', 'trainer']) await this.kubectl(...within, 'create', 'sa', account);
    const token = `--from-literal=token=${POD_TOKEN}`;
    await this.kubectl(...within, 'create', 'secret', 'generic', 'admin', token);
    const rights = ['--verb=update', '--resource=loraadapters.lorikeet.dev/tensors'];
    await this.kubectl(...within, 'create', 'role', 'pusher', ...rights);
    const binding = ['--role=pusher', `--serviceaccount=${NAMESPACE}:trainer`];
    await this.kubectl(...within, 'create', 'rolebinding', 'pusher', ...binding);
    for (const [index, { host }] of this.pods.entries()) await this.#createPod(`pod-${index}`, host);
    await this.apply(serverPool(this.pods[0]?.port ?? 0));
  }

  async #createPod(name: string, host: string): Promise<void> {
    const { status, ...pod } = kubePod(name, host);
    await this.apply({ ...pod, spec: { containers: [{ name: 'server', image: 'none' }] } } as {
      metadata: object;
    });
    const patch = JSON.stringify({ status: { ...status, podIPs: [{ ip: host }] } });
    const how = ['--subresource=status', '--type=merge', '-p', patch];
    await this.kubectl('-n', NAMESPACE, 'patch', 'pod', name, ...how);
  }

  async #kubeconfigOf(identity: string): Promise<string> {
    const file = join(this.#dir, `${identity}.kubeconfig`);
    await this.kubectl('-n', 'default', 'create', 'sa', identity);
    const subject = ['--clusterrole=cluster-admin', `--serviceaccount=default:${identity}`];
    await this.kubectl('create', 'clusterrolebinding', identity, ...subject);
    const token = (await this.kubectl('-n', 'default', 'create', 'token', identity)).trim();
    const config = JSON.parse(readFileSync(this.plane.kubeconfig, 'utf8'));
    writeFileSync(file, JSON.stringify({ ...config, users: [{ name: 'admin', user: { token } }] }));
    return file;
  }
}
