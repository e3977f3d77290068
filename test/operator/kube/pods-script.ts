import type { ServerResponse } from 'node:http';
import type { KubeObject } from '../../../operator/kube/resource.ts';
import { type Received, type Reply, ScriptedServer } from './scripted-server.ts';

export function pod(name: string, overrides: Partial<KubeObject['metadata']> = {}): KubeObject {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'ns', uid: `uid-${name}`, resourceVersion: '1', ...overrides },
  };
}

/** A server that lists and watches pods. Faults are used up one per request of their kind. */
export class PodsScript {
  readonly server: ScriptedServer;
  readonly faults: { list: Reply[]; watch: Reply[] } = { list: [], watch: [] };
  readonly watches = new Set<ServerResponse>();
  pods: KubeObject[] = [];
  resourceVersion = 100;
  pageSize = 500;

  private constructor(server: ScriptedServer) {
    this.server = server;
    server.script = (request) => (request.query.has('watch') ? this.#watch() : this.#list(request));
  }

  static async start(): Promise<PodsScript> {
    return new PodsScript(await ScriptedServer.start());
  }

  /** Changes what a list would say, and tells no watch. */
  put(object: KubeObject): KubeObject {
    this.resourceVersion += 1;
    const stored = {
      ...object,
      metadata: { ...object.metadata, resourceVersion: String(this.resourceVersion) },
    };
    this.pods = [...this.pods.filter(({ metadata }) => metadata.name !== object.metadata.name), stored];
    return stored;
  }

  emit(type: string, object: unknown): void {
    this.line(JSON.stringify({ type, object }));
  }

  line(line: string): void {
    for (const response of this.watches) response.write(`${line}\n`);
  }

  bookmark(): void {
    this.emit('BOOKMARK', { metadata: { resourceVersion: String(this.resourceVersion) } });
  }

  requestsOf(kind: 'list' | 'watch'): Received[] {
    return this.server.requests.filter(({ query }) => query.has('watch') === (kind === 'watch'));
  }

  #watch(): Reply {
    const fault = this.faults.watch.shift();
    if (fault !== undefined) return fault;
    return {
      stream: (response) => {
        response.writeHead(200).flushHeaders();
        this.watches.add(response);
        response.on('close', () => this.watches.delete(response));
      },
    };
  }

  #list(request: Received): Reply {
    const fault = this.faults.list.shift();
    if (fault !== undefined) return fault;
    const from = Number(request.query.get('continue') ?? 0);
    const items = this.pods.slice(from, from + this.pageSize);
    const next = from + this.pageSize < this.pods.length ? String(from + this.pageSize) : '';
    return {
      status: 200,
      body: { metadata: { resourceVersion: String(this.resourceVersion), continue: next }, items },
    };
  }
}
