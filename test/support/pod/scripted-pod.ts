import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { FastifyInstance, FastifyReply } from 'fastify';
import { pino } from 'pino';
import { Registry } from '../../../server/adapters/registry.ts';
import { buildAdminApp } from '../../../server/admin/admin-app.ts';
import type { Geometry, PodState } from '../../../server/contract/adapter-api.ts';
import { NativeEngine } from '../../../server/engine/native.ts';
import type { CaFile } from '../../../server/transfer/ca-file.ts';
import type { RelayLimits } from '../../../server/transfer/relay.ts';
import type { TlsFiles } from '../../../server/transfer/tls-files.ts';
import { FakeEngine } from '../fake-engine.ts';
import { bytesBefore, type Fault } from './fault.ts';
import { BASE_MODEL } from './state.ts';
import { toldReport } from './told-report.ts';

export const POD_TOKEN = 'a-token-for-tests-only';

export type Operation = 'state' | 'watch' | 'stage' | 'upload' | 'fetch' | 'activate' | 'remove' | 'seeded';

/**
 * `garbage` answers with a 200 that is not of this API; `lostReply` does what was asked, then cuts the connection;
 * `halfReply` does so within the body of its answer, or says no more there; `act` lets something else happen, and cuts
 * the connection.
 */
export type CallFault =
  | Fault
  | { kind: 'garbage' }
  | { kind: 'lostReply' }
  | { kind: 'act'; act: () => void }
  | { kind: 'halfReply'; afterBytes: number; end: 'hang' | 'reset' };

export interface ScriptedPodOptions {
  /** A loopback address; each pod of a pool has its own, and all the same port. */
  host: string;
  port?: number;
  baseModel?: { name?: string; digest?: string; geometry?: Geometry };
  maxRank?: number;
  /** Of the largest adapter. */
  maxAdapterBytes?: number;
  /** Of the host tier; four of the largest adapters by default. */
  hostBytes?: number;
  engine?: () => FakeEngine;
  relayLimits?: Partial<RelayLimits>;
  /** Else it speaks plain HTTP. */
  tls?: TlsFiles;
  /** Of the pods that it passes bodies on to over TLS. */
  relayCa?: CaFile;
}

/** The real admin API over a fake engine, with faults on request. */
export class ScriptedPod {
  readonly host: string;
  port: number;
  /** Calls that arrived, in order, faults included. */
  readonly calls: { operation: Operation; line: string; headers: IncomingHttpHeaders }[] = [];
  /** What became current, name and digest, in all of its processes and in order; and each revision that they packed. */
  readonly served: { name: string; digest: string }[] = [];
  readonly #engines: FakeEngine[] = [];
  readonly #options: ScriptedPodOptions;
  /** Of those that `fail` asked for, each that a call has met, as often as it did. */
  readonly met: CallFault[] = [];
  readonly #faults = new Map<Operation, { fault: CallFault; times: number }>();
  engine!: FakeEngine;
  registry!: Registry;
  #app: FastifyInstance | null = null;
  #lie: ((state: PodState) => PodState) | null = null;

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

  get url(): string {
    return `${this.#options.tls ? 'https' : 'http'}://${this.host}:${this.port}`;
  }

  /** A new process: a new bootId, and nothing in it. */
  async start(): Promise<void> {
    const log = pino({ level: 'silent' });
    const {
      baseModel,
      maxRank = 64,
      maxAdapterBytes = 16 << 20,
      hostBytes = 4 * maxAdapterBytes,
      engine = () => new FakeEngine(),
    } = this.#options;
    this.engine = engine();
    this.#engines.push(this.engine);
    this.registry = new Registry({
      engine: new NativeEngine(this.engine.start),
      baseModel: { ...BASE_MODEL, ...baseModel },
      limits: { hostBytes, maxRank, maxAdapterBytes },
      waiting: { max: 8, turnMax: 2 },
      log,
    });
    this.#noteServed(this.registry);
    const { relayLimits = {}, tls = null, relayCa = null } = this.#options;
    const registry = this.#told(this.registry);
    const options = { registry, token: () => POD_TOKEN, relayLimits, tls, relayCa, log };
    this.#app = buildAdminApp(options);
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
  fail(operation: Operation, fault: CallFault, times = 1): void {
    this.#faults.set(operation, { fault, times });
  }

  /** From now on it says this of what it holds; null: the truth. Watches begin anew. */
  say(lie: ((state: PodState) => PodState) | null): void {
    this.#lie = lie;
    this.#app?.server.closeAllConnections();
  }

  heal(): void {
    this.#faults.clear();
  }

  get packed(): string[] {
    return this.#engines.flatMap(({ packed }) => packed);
  }

  #noteServed(registry: Registry): void {
    const last = new Map<string, string | null>();
    registry.subscribe(() => {
      for (const { name, current } of registry.state().adapters) {
        if (current !== null && last.get(name) !== current) this.served.push({ name, digest: current });
        last.set(name, current);
      }
    });
  }

  currentOf(name: string): string | null {
    return this.registry.state().adapters.find((adapter) => adapter.name === name)?.current ?? null;
  }

  count(operation: Operation): number {
    return this.calls.filter((call) => call.operation === operation).length;
  }

  /** As those who call it see it. */
  #told(registry: Registry): Registry {
    const state = () => this.#lie?.(registry.state()) ?? registry.state();
    const report = toldReport(state);
    return new Proxy(registry, {
      get: (target, key) => {
        if (key === 'state') return state;
        if (key === 'report') return report;
        const value = Reflect.get(target, key, target);
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
  }

  #script(app: FastifyInstance): void {
    app.addHook('preHandler', async ({ method, url, headers, raw }, reply) => {
      const operation = operationOf(method, url);
      this.calls.push({ operation, line: `${method} ${url}`, headers });
      const fault = this.#take(operation);
      if (fault === null) return;
      const isMet = () => void this.met.push(fault);
      if (fault.kind === 'halfReply') return halveReply(reply, fault, isMet);
      if (fault.kind === 'act') return act(reply, fault);
      if (fault.kind === 'garbage' || fault.kind === 'lostReply') isMet();
      if (fault.kind === 'garbage') return reply.send({ scripted: true });
      if (fault.kind === 'lostReply') return loseReply(reply);
      const taken = await readBody(raw, bytesBefore(fault));
      // A body that ends before is no body that breaks off.
      if (taken >= (fault.afterBytes ?? 0)) isMet();
      if (fault.kind === 'refuse') throw fault.error;
      if (fault.kind === 'reset') raw.socket.destroy();
      return reply.hijack();
    });
  }

  #take(operation: Operation): CallFault | null {
    const planned = this.#faults.get(operation);
    if (planned === undefined) return null;
    planned.times -= 1;
    if (planned.times <= 0) this.#faults.delete(operation);
    return planned.fault;
  }
}

function act(reply: FastifyReply, fault: Extract<CallFault, { kind: 'act' }>): FastifyReply {
  fault.act();
  reply.raw.socket?.destroy();
  return reply.hijack();
}

function loseReply({ raw }: FastifyReply): void {
  raw.writeHead = (() => {
    raw.socket?.destroy();
    return raw;
  }) as typeof raw.writeHead;
}

/** Of all that is written to the caller, only the first bytes go out. */
function halveReply(
  { raw }: FastifyReply,
  { afterBytes, end: how }: Extract<CallFault, { kind: 'halfReply' }>,
  isMet: () => void,
): void {
  let left = afterBytes;
  const write = raw.write.bind(raw) as (chunk: Buffer) => boolean;
  const end = raw.end.bind(raw);
  const pass = (chunk: unknown): boolean => {
    if (chunk === undefined || left < 0) return true;
    const bytes = Buffer.from(chunk as string | Buffer);
    const isLast = bytes.length > left;
    if (left > 0) write(bytes.subarray(0, left));
    left -= bytes.length;
    if (!isLast) return true;
    isMet();
    if (how === 'reset') setImmediate(() => raw.socket?.destroy());
    return true;
  };
  raw.write = pass as typeof raw.write;
  raw.end = ((chunk?: unknown) => {
    pass(chunk);
    return left < 0 ? raw : end();
  }) as typeof raw.end;
}

/** The first bytes, and leaves the rest unread; returns how many there were. */
async function readBody(request: IncomingMessage, bytes: number): Promise<number> {
  let taken = 0;
  if (bytes === 0) return taken;
  for await (const chunk of request.iterator({ destroyOnReturn: false })) {
    taken += (chunk as Buffer).length;
    if (taken >= bytes) break;
  }
  return taken;
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
