import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { FastifyInstance } from 'fastify';
import type { Publication, PublishResult, PushContext } from '../../../operator/adapter/publication.ts';
import { TokenAuth } from '../../../operator/push/auth.ts';
import type { Publisher } from '../../../operator/push/publisher.ts';
import { buildPushApp, type PushAppOptions, type PushLimits } from '../../../operator/push/server.ts';
import { Spool } from '../../../operator/source/spool.ts';
import type { Geometry, PodState, StageReply } from '../../../server/contract/adapter-api.ts';
import { revisionDigest } from '../../../server/contract/digest.ts';
import { LorikeetError } from '../../../server/contract/errors.ts';
import {
  type AdapterFiles,
  CONFIG,
  f32,
  factorName,
  packSafetensors,
  type Tensors,
} from '../../support/adapter-files.ts';

export const geometry: Geometry = {
  layers: 4,
  modules: {
    q_proj: { in: 256, out: 256 },
    k_proj: { in: 256, out: 64 },
    v_proj: { in: 256, out: 64 },
    o_proj: { in: 256, out: 256 },
    gate_proj: { in: 256, out: 640 },
    up_proj: { in: 256, out: 640 },
    down_proj: { in: 640, out: 256 },
  },
};

const made = new Map<string, AdapterFiles>();

/** Rank 64 on all seven modules, 4.5 MB: far more than sockets and windows hold. On q_proj and v_proj, 0.9 MB. */
export function bigAdapter(modules = Object.keys(geometry.modules)): AdapterFiles {
  const known = made.get(modules.join());
  if (known) return known;
  const tensors: Tensors = new Map();
  for (let layer = 0; layer < geometry.layers; layer += 1) {
    for (const module of modules) {
      const { in: width, out } = geometry.modules[module] as { in: number; out: number };
      tensors.set(factorName(layer, module, 'A'), f32([64, width], Math.sin));
      tensors.set(factorName(layer, module, 'B'), f32([out, 64], Math.cos));
    }
  }
  const config = Buffer.from(JSON.stringify({ ...CONFIG, r: 64, target_modules: modules }));
  const files = { tensors: packSafetensors(tensors), config };
  made.set(modules.join(), files);
  return files;
}

export const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');
export const digestOf = (files: { tensors: Buffer; config: Buffer }) =>
  revisionDigest(JSON.parse(files.config.toString()), sha256(files.tensors));
export const configHeader = (config: Buffer) => config.toString('base64url');

/** How a pod takes an upload. */
export type Manner =
  | { kind: 'well' }
  /** Never takes a byte. */
  | { kind: 'hung' }
  | { kind: 'slow'; msPerBlock: number }
  /** Takes `bytes`, then fails with `error`, or hangs where there is none. */
  | { kind: 'stops'; bytes: number; error?: Error }
  /** Takes all and does not answer. */
  | { kind: 'silent' }
  /** Takes all and answers this. */
  | { kind: 'refuses'; error: Error }
  | { kind: 'garbles' };

export class FakePod {
  readonly name: string;
  manner: Manner;
  /** Digests of whole revisions, in the order they came. */
  readonly staged: string[] = [];
  readonly uploads: {
    name: string;
    config: unknown;
    step: number | null;
    size: number | null;
    allow: string[];
  }[] = [];
  receivedBytes = 0;
  blocks = 0;
  cut = 0;
  state: PodState | null = null;

  constructor(name: string, manner: Manner = { kind: 'well' }) {
    this.name = name;
    this.manner = manner;
  }

  readonly client = {
    upload: async (
      name: string,
      body: AsyncIterable<Uint8Array>,
      options: {
        size: number | null;
        config: unknown;
        step: number | null;
        allow: string[];
        signal: AbortSignal;
      },
    ): Promise<StageReply> => {
      const { config, step, size, allow, signal } = options;
      this.uploads.push({ name, config, step, size, allow });
      try {
        return await this.#take(body, { config, size, signal });
      } catch (error) {
        this.cut += 1;
        throw error;
      }
    },
  };

  async #take(
    body: AsyncIterable<Uint8Array>,
    { config, size, signal }: { config: unknown; size: number | null; signal: AbortSignal },
  ): Promise<StageReply> {
    const { manner } = this;
    if (manner.kind === 'hung') await aborted(signal);
    const hash = createHash('sha256');
    let bytes = 0;
    for await (const block of body) {
      hash.update(block);
      bytes += block.length;
      this.receivedBytes += block.length;
      this.blocks += 1;
      // As over HTTP with a Content-Length: the last byte is the end.
      if (bytes === size) break;
      if (manner.kind === 'slow') await new Promise((resolve) => setTimeout(resolve, manner.msPerBlock));
      if (manner.kind === 'stops' && bytes >= manner.bytes) {
        if (manner.error) throw manner.error;
        await aborted(signal);
      }
    }
    if (manner.kind === 'refuses') throw manner.error;
    if (manner.kind === 'silent') await aborted(signal);
    const tensors = manner.kind === 'garbles' ? '0'.repeat(64) : hash.digest('hex');
    const revision = revisionDigest(config, tensors);
    this.staged.push(revision);
    return { revision } as StageReply;
  }
}

function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
}

/** Keeps desired revisions the way the real one promises to. */
export class FakePublisher implements Publisher {
  pods: FakePod[] = [new FakePod('pod-a'), new FakePod('pod-b')];
  desired: { digest: string; step: number | null } | null = null;
  config: unknown | null = null;
  maxBytes = 8 * 2 ** 20;
  maxRank = 64;
  verify: object | undefined;
  error: LorikeetError | null = null;
  readonly publications: Publication[] = [];
  /** Awaited by publish, to hold a push in its last phase. */
  gate: Promise<void> = Promise.resolve();

  context(namespace: string, name: string): PushContext {
    if (this.error) throw this.error;
    if (name !== 'sql') throw new LorikeetError('adapter_not_found', 'There is no such adapter');
    const { desired, config, maxBytes, maxRank, verify } = this;
    const adapter = {
      metadata: { namespace, name },
      spec: { source: { push: {} }, ...(verify ? { verify } : {}) },
    };
    const context = {
      adapter,
      servedName: 'sql-served',
      pods: this.pods,
      geometry,
      maxRank,
      maxBytes,
      desired,
      config,
    };
    return context as unknown as PushContext;
  }

  fenceFor() {
    return { term: 4, sequence: 2 };
  }

  async publish(publication: Publication): Promise<PublishResult> {
    await this.gate;
    const { digest, step, bytes, staged, ifMatch, config } = publication;
    const pods = staged.map(({ pod, ok, ms }) => ({
      name: pod.name,
      state: ok ? ('active' as const) : ('failed' as const),
      ms,
    }));
    if (this.desired?.digest === digest) {
      return { revision: digest, step: this.desired.step, bytes, noop: true, pods, swap: null };
    }
    if (ifMatch !== null && (ifMatch === '*' ? this.desired === null : ifMatch !== this.desired?.digest)) {
      throw new LorikeetError('precondition_failed', 'Another revision is current', {
        expected: ifMatch,
        actual: this.desired?.digest ?? null,
      });
    }
    if (step !== null && this.desired?.step !== null && this.desired !== null && step <= this.desired.step) {
      throw new LorikeetError('step_not_newer', 'The step is not newer', {
        expected: this.desired.step + 1,
        actual: step,
      });
    }
    this.publications.push(publication);
    this.desired = { digest, step };
    this.config = config;
    return { revision: digest, step, bytes, noop: false, pods, swap: { durationMs: 3, skewMs: 1 } };
  }
}

export const TOKENS = {
  trainer: 'canary-token-trainer',
  otherNamespace: 'canary-token-other-namespace',
  wrongAudience: 'canary-token-wrong-audience',
  noAudience: 'canary-token-no-audience',
  expired: 'canary-token-expired',
} as const;

/** The two reviews of an API server. */
export class FakeReviews {
  asked: { kind: string; spec: Record<string, unknown> }[] = [];
  down = false;
  holdMs = 0;

  readonly request = async <T>(call: { path: string; body?: unknown }): Promise<T> => {
    const { kind, spec } = call.body as { kind: string; spec: Record<string, unknown> };
    this.asked.push({ kind, spec });
    if (this.holdMs > 0) await new Promise((resolve) => setTimeout(resolve, this.holdMs));
    if (this.down) throw new Error(`connect ECONNREFUSED, body was ${JSON.stringify(call.body)}`);
    return { status: kind === 'TokenReview' ? tokenStatus(String(spec.token)) : accessStatus(spec) } as T;
  };
}

function tokenStatus(token: string): object {
  const user = {
    username: `system:serviceaccount:team-a:${token.replace('canary-token-', '')}`,
    groups: ['g'],
    uid: 'u',
  };
  const audiences = ['lorikeet-push'];
  if (token === TOKENS.trainer || token === TOKENS.otherNamespace)
    return { authenticated: true, user, audiences };
  if (token === TOKENS.wrongAudience)
    return { authenticated: true, user, audiences: ['https://kubernetes.default'] };
  if (token === TOKENS.noAudience) return { authenticated: true, user };
  return { authenticated: false, error: `token ${token} has expired` };
}

function accessStatus(spec: Record<string, unknown>): object {
  const { namespace, subresource, resource, group } = spec.resourceAttributes as Record<string, string>;
  const isTrainer = String(spec.user).endsWith(':trainer');
  const allowed =
    isTrainer &&
    namespace === 'team-a' &&
    `${group}/${resource}/${subresource}` === 'lorikeet.dev/loraadapters/tensors';
  return { allowed };
}

export interface Rig {
  app: FastifyInstance;
  port: number;
  publisher: FakePublisher;
  reviews: FakeReviews;
  spool: Spool;
  leader: { leading: { term: number } | null; holder: PushAppOptions['leader']['holder'] };
  logs: { level: string; fields: object; message: string }[];
  counted: string[];
  inFlight: [number, number];
  close(): Promise<void>;
}

export const FAST: Partial<PushLimits> = {
  body: { idleMs: 400, waitMs: 1_500, bytesPerMsMin: 1024 },
  branch: { windowBytes: 128 * 1024, stallMs: 200, startMs: 300 },
};

export async function startRig(limits: Partial<PushLimits> = {}): Promise<Rig> {
  const dir = mkdtempSync(join(tmpdir(), 'lorikeet-push-'));
  const logs: Rig['logs'] = [];
  const log = Object.fromEntries(
    ['debug', 'info', 'warn', 'error'].map((level) => [
      level,
      (fields: object, message: string) => logs.push({ level, fields, message }),
    ]),
  ) as unknown as PushAppOptions['log'];
  const reviews = new FakeReviews();
  const rig: Omit<Rig, 'app' | 'port' | 'close'> = {
    publisher: new FakePublisher(),
    reviews,
    spool: new Spool({ dir, maxBytes: 64 * 2 ** 20 }),
    leader: { leading: { term: 1 }, holder: () => null },
    logs,
    counted: [],
    inFlight: [0, 0],
  };
  const app = buildPushApp({
    publisher: rig.publisher,
    auth: new TokenAuth({ rest: reviews, audience: 'lorikeet-push', log }),
    spool: rig.spool,
    leader: rig.leader,
    log,
    metrics: {
      pushed: (code) => rig.counted.push(code),
      inFlight: (pushes, bytes) => {
        rig.inFlight = [pushes, bytes];
      },
    },
    limits: { ...FAST, ...limits },
  });
  await app.listen({ host: '127.0.0.1', port: 0 });
  const { port } = app.server.address() as AddressInfo;
  const close = async () => {
    app.server.closeAllConnections();
    await app.close();
    rmSync(dir, { recursive: true, force: true });
  };
  return Object.assign(rig, { app, port, close });
}

export interface RawReply {
  status: number;
  headers: Record<string, string>;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into replies of many shapes.
  body: any;
}

/** A client that says exactly what it is told, on a socket of its own. */
export class RawClient {
  readonly socket: Socket;
  #text = '';
  #ended = false;
  #wake: () => void = () => undefined;

  constructor(port: number) {
    this.socket = connect(port, '127.0.0.1');
    this.socket.on('data', (chunk) => {
      this.#text += chunk.toString('latin1');
      this.#wake();
    });
    const end = () => {
      this.#ended = true;
      this.#wake();
    };
    this.socket.on('end', end).on('close', end).on('error', end);
  }

  send(bytes: string | Uint8Array): void {
    this.socket.write(bytes);
  }

  /** A PUT's head, with a token and a config unless told otherwise (null leaves a header out). */
  head(headers: Record<string, string | number | null> = {}, { path = PATH, method = 'PUT' } = {}): void {
    const all = { host: 'operator', authorization: `Bearer ${TOKENS.trainer}`, ...headers };
    const lines = Object.entries(all).filter(([, value]) => value !== null);
    this.send(
      `${method} ${path} HTTP/1.1\r\n${lines.map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n`,
    );
  }

  /** The next final response, interim ones skipped; null where the connection ended without one. */
  async reply(): Promise<RawReply | null> {
    for (;;) {
      const parsed = this.#parse();
      if (parsed === 'interim') continue;
      if (parsed !== null) return parsed;
      if (this.#ended) return null;
      await this.#more();
    }
  }

  /** Whether the server has said `100 Continue`. */
  async continued(): Promise<boolean> {
    while (!this.#text.includes('\r\n\r\n') && !this.#ended) await this.#more();
    return this.#text.startsWith('HTTP/1.1 100');
  }

  async ended(): Promise<void> {
    while (!this.#ended) await this.#more();
  }

  close(): void {
    this.socket.destroy();
  }

  #more(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#wake = resolve;
    return promise;
  }

  #parse(): RawReply | 'interim' | null {
    const end = this.#text.indexOf('\r\n\r\n');
    if (end < 0) return null;
    const [first = '', ...lines] = this.#text.slice(0, end).split('\r\n');
    const status = Number(first.split(' ')[1]);
    const rest = this.#text.slice(end + 4);
    if (status === 100) {
      this.#text = rest;
      return 'interim';
    }
    const headers = Object.fromEntries(
      lines.map((line) => [
        line.slice(0, line.indexOf(':')).toLowerCase(),
        line.slice(line.indexOf(':') + 1).trim(),
      ]),
    );
    const length = Number(headers['content-length'] ?? 0);
    if (rest.length < length) return null;
    this.#text = rest.slice(length);
    const text = Buffer.from(rest.slice(0, length), 'latin1').toString('utf8');
    return { status, headers, body: text === '' ? null : JSON.parse(text) };
  }
}

export const PATH = '/v1/namespaces/team-a/adapters/sql/revisions';

/** A whole push with fetch. */
export async function put(
  rig: Pick<Rig, 'port'>,
  files: { tensors: Buffer; config: Buffer },
  { headers = {}, query = '' }: { headers?: Record<string, string>; query?: string } = {},
): Promise<RawReply> {
  const response = await fetch(`http://127.0.0.1:${rig.port}${PATH}${query}`, {
    method: 'PUT',
    headers: {
      authorization: `Bearer ${TOKENS.trainer}`,
      'x-lora-config': configHeader(files.config),
      ...headers,
    },
    body: new Uint8Array(files.tensors),
  });
  return {
    status: response.status,
    headers: Object.fromEntries(response.headers),
    body: JSON.parse(await response.text()),
  };
}
