import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import {
  type ActivateReply,
  ActivateRequest,
  type AdapterState,
  HEADER,
  type PodChanges,
  type PodState,
  type RemoveReply,
  type StageReply,
} from '../../../server/contract/adapter-api.ts';
import { decodeConfig, readConfig, readFence, readWatch } from '../../../server/contract/headers.ts';
import { digestOf } from '../../support/adapter-files.ts';
import { podState } from '../../support/pod/state.ts';
import type { FleetFigures } from './figures.ts';

const GIB = 2 ** 30;
const LIMITS = { slots: 4_096, pages: 4_096, hostBytes: 64 * GIB, maxAdapterBytes: 16 << 20 };
/** Changes within this time become one event, as in a pod. */
const COALESCE_MS = 20;
const KEEPALIVE_MS = 10_000;

interface Watch {
  response: ServerResponse;
  takesChanges: boolean;
  /** Names that changed since the last event. */
  names: Set<string>;
}

/** What a pod says and does, without bytes: adapters that are the same in many pods are one object. */
class StandIn {
  readonly host: string;
  readonly adapters = new Map<string, AdapterState>();
  readonly watches = new Set<Watch>();
  epoch = 0;
  #timer: NodeJS.Timeout | null = null;
  #events = 0;

  constructor(host: string) {
    this.host = host;
  }

  get state(): PodState {
    const adapters = [...this.adapters.values()];
    return { ...podState({ adapters, limits: LIMITS }), bootId: this.host, epoch: this.epoch };
  }

  set(name: string, adapter: AdapterState | null): void {
    if (adapter === null) this.adapters.delete(name);
    else this.adapters.set(name, adapter);
    for (const watch of this.watches) watch.names.add(name);
    this.#timer ??= setTimeout(() => this.#tell(), COALESCE_MS);
  }

  stage(name: string, digest: string, bytes: number): boolean {
    const known = this.adapters.get(name);
    const { revisions = [], ...rest } = known ?? { name, current: null, fence: null };
    if (revisions.some((item) => item.digest === digest)) return true;
    const kept = { step: null, tier: 'host', leases: 0, bytes, rank: 1, modules: ['v_proj'] } as const;
    const modules = [...kept.modules];
    this.set(name, { ...rest, revisions: [...revisions, { ...kept, modules, digest, state: 'staged' }] });
    return false;
  }

  /** False where it does not hold the revision. */
  activate(name: string, digest: string, fence: AdapterState['fence']): boolean {
    const known = this.adapters.get(name);
    if (known?.revisions.every((item) => item.digest !== digest) ?? true) return false;
    const revisions = (known?.revisions ?? []).map((item) => {
      return { ...item, state: item.digest === digest ? ('current' as const) : ('staged' as const) };
    });
    this.epoch += 1;
    this.set(name, { name, current: digest, fence, revisions });
    return true;
  }

  watch(response: ServerResponse, takesChanges: boolean): void {
    const watch = { response, takesChanges, names: new Set<string>() };
    this.watches.add(watch);
    const alive = setInterval(() => response.write(': alive\n\n'), KEEPALIVE_MS);
    response.once('close', () => {
      clearInterval(alive);
      this.watches.delete(watch);
    });
    response.writeHead(200, { 'content-type': 'text/event-stream', connection: 'close' });
    response.write(this.#event(this.state, ''));
  }

  #tell(): void {
    this.#timer = null;
    for (const watch of this.watches) {
      const names = [...watch.names];
      watch.names.clear();
      if (names.length === 0) continue;
      if (watch.takesChanges) watch.response.write(this.#event(this.#changes(names), 'event: changes\n'));
      else watch.response.write(this.#event(this.state, ''));
    }
  }

  #changes(names: string[]): PodChanges {
    const { used, epoch, seeded } = podState({ limits: LIMITS });
    const adapters = names.flatMap((name) => this.adapters.get(name) ?? []);
    const removed = names.filter((name) => !this.adapters.has(name));
    return { adapters, removed, used, epoch: epoch + this.epoch, seeded };
  }

  #event(data: PodState | PodChanges, type: string): string {
    this.#events += 1;
    return `${type}id: ${this.host}.${this.#events}\ndata: ${JSON.stringify(data)}\n\n`;
  }
}

/** Many pods that one server speaks for: an address of the loopback tells it which. */
export class StandIns implements FleetFigures {
  readonly #server: Server;
  readonly #pods = new Map<string, StandIn>();
  readonly #sockets = new Set<{ bytesWritten: number }>();
  #goneBytes = 0;
  stages = 0;
  activations = 0;
  port = 0;

  private constructor() {
    this.#server = createServer((request, response) => {
      this.#answer(request, response).catch((error) => response.destroy(error));
    });
    this.#server.on('connection', (socket) => {
      this.#sockets.add(socket);
      socket.once('close', () => {
        this.#sockets.delete(socket);
        this.#goneBytes += socket.bytesWritten;
      });
    });
  }

  static async start(count: number): Promise<StandIns> {
    const pods = new StandIns();
    for (let index = 0; index < count; index++) {
      const host = `127.0.${40 + Math.floor(index / 200)}.${(index % 200) + 1}`;
      pods.#pods.set(host, new StandIn(host));
    }
    await new Promise<void>((resolve) => pods.#server.listen(0, '0.0.0.0', resolve));
    pods.port = (pods.#server.address() as AddressInfo).port;
    return pods;
  }

  get hosts(): string[] {
    return [...this.#pods.keys()];
  }

  get sentBytes(): number {
    return [...this.#sockets].reduce((sum, { bytesWritten }) => sum + bytesWritten, this.#goneBytes);
  }

  /** How many of the pods serve another revision of it than `digest`. */
  without(name: string, digest: string): number {
    return [...this.#pods.values()].filter(({ adapters }) => adapters.get(name)?.current !== digest).length;
  }

  /** Every pod holds what any holds, as if it had been given it while nobody looked. */
  spread(): void {
    const all = new Map([...this.#pods.values()].flatMap(({ adapters }) => [...adapters]));
    for (const pod of this.#pods.values()) for (const [name, adapter] of all) pod.set(name, adapter);
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const pod = this.#pods.get(request.socket.localAddress ?? '');
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const path = (request.url ?? '').split('/').map(decodeURIComponent);
    const [, , , kind = '', name = '', act = '', digest] = path;
    if (pod === undefined) return void response.writeHead(404).end();
    if (kind === 'watch') return pod.watch(response, readWatch(request.headers).takesChanges);
    if (kind === 'seeded') return void response.writeHead(204).end();
    const reply = kind === 'state' ? pod.state : this.#change(pod, request, { name, act, digest, chunks });
    const missing = { error: { code: 'revision_not_found', message: `no such revision of ${name}` } };
    const headers = { 'content-type': 'application/json' };
    response.writeHead(reply === null ? 404 : 200, headers).end(JSON.stringify(reply ?? missing));
  }

  #change(
    pod: StandIn,
    { method, headers }: IncomingMessage,
    {
      name,
      act,
      digest,
      chunks,
    }: { name: string; act: string; digest: string | undefined; chunks: Buffer[] },
  ): StageReply | ActivateReply | RemoveReply | null {
    const body = Buffer.concat(chunks);
    if (method === 'DELETE') {
      const removed = pod.adapters.get(name)?.revisions.map((item) => item.digest) ?? [];
      pod.set(name, null);
      return { name, removed, leases: 0 };
    }
    if (act === 'activate') {
      const { revision } = ActivateRequest.parse(JSON.parse(body.toString()));
      const previous = pod.adapters.get(name)?.current ?? null;
      this.activations += 1;
      if (!pod.activate(name, revision, readFence(headers))) return null;
      return { name, revision, previous, epoch: pod.epoch, visibleAtStep: 1, durationMs: 0 };
    }
    const revision = digest ?? digestOf({ tensors: body, config: decodeConfig(readConfig(headers) ?? '') });
    const behind = String(headers[HEADER.relay] ?? '')
      .split(',')
      .filter(Boolean);
    this.stages += 1 + behind.length;
    const existed = pod.stage(name, revision, body.length);
    for (const url of behind) this.#pods.get(new URL(url).hostname)?.stage(name, revision, body.length);
    return stageReply({ name, revision, bytes: body.length, existed }, behind);
  }
}

function stageReply(
  staged: Pick<StageReply, 'name' | 'revision' | 'bytes' | 'existed'>,
  behind: string[],
): StageReply {
  const { revision } = staged;
  const lists = {
    targetModules: ['v_proj'],
    layers: [0, 1, 2, 3],
    ranks: [1],
    dtypes: ['F32'],
    warnings: [],
  };
  const timings = { receiveMs: 0, checkMs: 0, packMs: 0 };
  return {
    ...staged,
    step: null,
    report: { ...lists, modules: 4, rank: 1, pages: 1, rounded: 0, timings },
    relayed: behind.map((url) => ({ url, state: 'staged', revision, error: null })),
  };
}
