import { eventually } from '../support/eventually.ts';
import { parseAdapter, parsePod, type SeenAdapter, type SeenPod } from './objects.ts';

/** Runs kubectl against one cluster and returns its stdout. */
export type Kubectl = (args: string[], input?: string) => Promise<string>;

export interface Namespaces {
  /** Of the operator. */
  system: string;
  /** Of the pool and its adapters. */
  models: string;
}

/** What a user does and sees by kubectl in a cluster with an operator and one pool. */
export class Cluster {
  readonly kubectl: Kubectl;
  readonly namespaces: Namespaces;

  constructor(kubectl: Kubectl, namespaces: Namespaces) {
    this.kubectl = kubectl;
    this.namespaces = namespaces;
  }

  async apply(object: object): Promise<string> {
    return await this.kubectl(['apply', '--server-side', '-f', '-'], JSON.stringify(object));
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
    return this.#pods(this.namespaces.models, 'app.kubernetes.io/name=lorikeet-server');
  }

  operators(): Promise<SeenPod[]> {
    return this.#pods(this.namespaces.system, 'app.kubernetes.io/name=lorikeet');
  }

  async #pods(namespace: string, selector: string): Promise<SeenPod[]> {
    const text = await this.kubectl(['get', 'pods', '-n', namespace, '-l', selector, '-o', 'json']);
    return (JSON.parse(text) as { items: unknown[] }).items.map(parsePod);
  }

  async adapter(name: string): Promise<SeenAdapter> {
    return parseAdapter(
      JSON.parse(await this.kubectl(['get', 'loras', name, '-n', this.namespaces.models, '-o', 'json'])),
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
  async tokenFor(account: string, audience: string, namespace = this.namespaces.models): Promise<string> {
    await this.apply({
      apiVersion: 'v1',
      kind: 'ServiceAccount',
      metadata: { name: account, namespace },
    });
    const args = ['create', 'token', account, '-n', namespace, '--audience', audience];
    return (await this.kubectl(args)).trim();
  }

  /** Lets an account push to the adapters of the pool's namespace. */
  async allowPush(account: string): Promise<void> {
    await this.apply({
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'RoleBinding',
      metadata: { name: `${account}-pushes`, namespace: this.namespaces.models },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'lorikeet-pusher' },
      subjects: [{ kind: 'ServiceAccount', name: account, namespace: this.namespaces.models }],
    });
  }
}
