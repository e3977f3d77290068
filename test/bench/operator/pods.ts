import type { AddressInfo } from 'node:net';
import type { FastifyInstance } from 'fastify';
import { pino } from 'pino';
import { Registry } from '../../../server/adapters/registry.ts';
import { buildAdminApp } from '../../../server/admin/admin-app.ts';
import { NativeEngine } from '../../../server/engine/native.ts';
import { FakeEngine } from '../../support/fake-engine.ts';
import { POD_TOKEN } from '../../support/pod/scripted-pod.ts';
import { BASE_MODEL } from '../../support/pod/state.ts';

const HOST_BYTES = 8 * 2 ** 30;
const LIMITS = { hostBytes: HOST_BYTES, maxRank: 64, maxAdapterBytes: 16 << 20 };

/** A pod that never forgets: the real admin API and the real registry over an engine without a model. */
class BenchPod {
  readonly registry: Registry;
  readonly #app: FastifyInstance;
  #goneBytes = 0;
  #sockets = new Set<{ bytesWritten: number }>();
  stages = 0;
  activations = 0;

  constructor() {
    const log = pino({ level: 'silent' });
    this.registry = new Registry({
      engine: new NativeEngine(new FakeEngine().start),
      baseModel: BASE_MODEL,
      limits: LIMITS,
      waiting: { max: 8, turnMax: 2 },
      log,
    });
    this.#app = buildAdminApp({ registry: this.registry, token: () => POD_TOKEN, log });
    this.#app.addHook('onRequest', async ({ method, url }) => {
      if (method === 'PUT') this.stages += 1;
      if (url.endsWith('/activate')) this.activations += 1;
    });
    this.#app.server.on('connection', (socket) => {
      this.#sockets.add(socket);
      socket.once('close', () => {
        this.#sockets.delete(socket);
        this.#goneBytes += socket.bytesWritten;
      });
    });
  }

  /** What it has sent to whoever asked. */
  get sentBytes(): number {
    return [...this.#sockets].reduce((sum, { bytesWritten }) => sum + bytesWritten, this.#goneBytes);
  }

  async listen(host: string, port: number): Promise<number> {
    await this.#app.listen({ host, port });
    return (this.#app.server.address() as AddressInfo).port;
  }

  async stop(): Promise<void> {
    this.#app.server.closeAllConnections();
    await this.#app.close();
  }
}

/** Pods in this process, each at a loopback address of its own. */
export class BenchPods {
  readonly hosts: string[] = [];
  readonly #pods: BenchPod[] = [];
  port = 0;

  static async start(count: number): Promise<BenchPods> {
    const pods = new BenchPods();
    for (let index = 0; index < count; index++) {
      const pod = new BenchPod();
      const host = `127.0.${40 + Math.floor(index / 200)}.${(index % 200) + 1}`;
      pods.port = await pod.listen(host, pods.port);
      pods.hosts.push(host);
      pods.#pods.push(pod);
    }
    return pods;
  }

  get sentBytes(): number {
    return this.#sum((pod) => pod.sentBytes);
  }

  get stages(): number {
    return this.#sum((pod) => pod.stages);
  }

  get activations(): number {
    return this.#sum((pod) => pod.activations);
  }

  /** How many of the pods serve another revision of it than `digest`. */
  without(name: string, digest: string): number {
    return this.#sum(({ registry }) => (registry.lookup.pin(name)?.digest === digest ? 0 : 1));
  }

  async stop(): Promise<void> {
    await Promise.all(this.#pods.map((pod) => pod.stop()));
  }

  #sum(figure: (pod: BenchPod) => number): number {
    return this.#pods.reduce((sum, pod) => sum + figure(pod), 0);
  }
}
