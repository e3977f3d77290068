import type { AddressInfo } from 'node:net';
import type { FastifyInstance, FastifyReply } from 'fastify';
import { pino } from 'pino';
import { Registry } from '../../server/adapters/registry.ts';
import { buildAdminApp } from '../../server/admin/admin-app.ts';
import { type ErrorCode, LorikeetError } from '../../server/contract/errors.ts';
import { NativeEngine } from '../../server/engine/native.ts';
import { FakeEngine } from './fake-engine.ts';
import { PARROT_GEOMETRY } from './parrot-geometry.ts';

export const POD_TOKEN = 'a-token-for-tests-only';
export const BASE_DIGEST = `sha256:${'b'.repeat(64)}`;

export type Operation = 'state' | 'watch' | 'stage' | 'upload' | 'fetch' | 'activate' | 'remove' | 'seeded';

/**
 * What happens to a call instead of, or after, what should: `hang` never answers; `refuse` answers with a code of the
 * catalogue; `garbage` with a 200 that is not of this API; `lostReply` does what was asked, then cuts the connection.
 */
export type Fault =
  | { kind: 'hang' }
  | { kind: 'refuse'; code: ErrorCode }
  | { kind: 'garbage' }
  | { kind: 'lostReply' };

export interface ScriptedPodOptions {
  /** A loopback address; each pod of a pool has its own, and all the same port. */
  host: string;
  port?: number;
  baseModel?: { name?: string; digest?: string };
  maxRank?: number;
  slots?: number;
}

/** The real admin API over a fake engine, with faults on request. */
export class ScriptedPod {
  readonly host: string;
  port: number;
  /** Calls that arrived, in order, faults included. */
  readonly calls: Operation[] = [];
  readonly #options: ScriptedPodOptions;
  readonly #faults = new Map<Operation, { fault: Fault; times: number }>();
  engine!: FakeEngine;
  registry!: Registry;
  #app: FastifyInstance | null = null;

  private constructor(options: ScriptedPodOptions) {
    this.#options = options;
    this.host = options.host;
    this.port = options.port ?? 0;
  }

  static async start(options: ScriptedPodOptions): Promise<ScriptedPod> {
    const pod = new ScriptedPod(options);
    await pod.start();
    return pod;
  }

  /** A new process: a new bootId, and nothing in it. */
  async start(): Promise<void> {
    const { baseModel = {}, maxRank = 64, slots = 8 } = this.#options;
    const log = pino({ level: 'silent' });
    this.engine = new FakeEngine(slots);
    this.registry = new Registry({
      engine: new NativeEngine(this.engine.start),
      baseModel: { name: 'parrot', digest: BASE_DIGEST, geometry: PARROT_GEOMETRY, ...baseModel },
      limits: { hostBytes: 64 << 20, maxRank, maxAdapterBytes: 16 << 20 },
      waiting: { max: 8, turnMax: 2 },
      log,
    });
    this.#app = buildAdminApp({ registry: this.registry, token: POD_TOKEN, log });
    this.#script(this.#app);
    await this.#app.listen({ host: this.host, port: this.port });
    this.port = (this.#app.server.address() as AddressInfo).port;
  }

  /** As SIGKILL: connections are cut. */
  async stop(): Promise<void> {
    const app = this.#app;
    this.#app = null;
    app?.server.closeAllConnections();
    await app?.close();
  }

  async restart(): Promise<void> {
    await this.stop();
    await this.start();
  }

  /** The next calls of an operation meet this fault. */
  fail(operation: Operation, fault: Fault, times = 1): void {
    this.#faults.set(operation, { fault, times });
  }

  heal(): void {
    this.#faults.clear();
  }

  currentOf(name: string): string | null {
    return this.registry.state().adapters.find((adapter) => adapter.name === name)?.current ?? null;
  }

  count(operation: Operation): number {
    return this.calls.filter((call) => call === operation).length;
  }

  #script(app: FastifyInstance): void {
    app.addHook('preHandler', async (request, reply) => {
      const operation = operationOf(request.method, request.url);
      this.calls.push(operation);
      const fault = this.#take(operation);
      if (fault === null) return;
      if (fault.kind === 'refuse') throw new LorikeetError(fault.code, 'scripted');
      if (fault.kind === 'garbage') return reply.send({ scripted: true });
      if (fault.kind === 'hang') return hang(reply);
      const cut = () => request.raw.socket.destroy();
      reply.raw.writeHead = ((..._args: unknown[]) => {
        cut();
        return reply.raw;
      }) as typeof reply.raw.writeHead;
    });
  }

  #take(operation: Operation): Fault | null {
    const planned = this.#faults.get(operation);
    if (planned === undefined) return null;
    planned.times -= 1;
    if (planned.times <= 0) this.#faults.delete(operation);
    return planned.fault;
  }
}

function hang(reply: FastifyReply): FastifyReply {
  reply.hijack();
  return reply;
}

function operationOf(method: string, url: string): Operation {
  if (url.endsWith('/state')) return 'state';
  if (url.endsWith('/watch')) return 'watch';
  if (url.endsWith('/seeded')) return 'seeded';
  if (url.endsWith('/activate')) return 'activate';
  if (method === 'PUT') return 'stage';
  if (method === 'POST') return 'upload';
  return method === 'DELETE' ? 'remove' : 'fetch';
}
