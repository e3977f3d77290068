import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import { LorikeetError } from '../../server/contract/errors.ts';
import type { CaFile } from '../../server/transfer/ca-file.ts';
import { keepRoom } from '../../server/transfer/connections.ts';
import { HashThread } from '../../server/transfer/hash-thread.ts';
import { BODY_PACE } from '../../server/transfer/limits.ts';
import { answerOf, refuseUnreadable } from '../../server/transfer/refusal.ts';
import { listenerOptions, type TlsFiles } from '../../server/transfer/tls-files.ts';
import { followTraces } from '../../server/transfer/trace-hook.ts';
import { ObjectName } from '../api/fields.ts';

import type { Clock } from '../kube/clock.ts';
import type { Elector } from '../kube/leader.ts';
import type { Log } from '../kube/log.ts';
import type { Spool } from '../spool/spool.ts';
import { sayAlive } from './alive.ts';
import { type Action, auditAnswered, auditRefused, whoAsks } from './audit.ts';
import { type Auth, bearerOf, type Caller, type Target } from './auth.ts';
import { type BodyLimits, ClientGone } from './body-reader.ts';
import type { BranchLimits } from './branch.ts';
import { FORWARDED, forward } from './forward.ts';
import type { Publisher } from './publisher.ts';
import { type PushReply, type PushTimings, push } from './push.ts';
import { refusalOf, send } from './refusal.ts';
import { listRevisions } from './revisions.ts';
import { rollback } from './rollback.ts';
import { Running } from './running.ts';
import { Seldom } from './seldom.ts';
import { Budget, Turns } from './turns.ts';

export interface PushMetrics {
  /** `code`: `ok`, `noop`, or the code of the refusal. */
  pushed(code: string, bytes: number, timings: PushTimings | null): void;
  inFlight(pushes: number, bytes: number): void;
}

export interface PushLimits {
  body: Omit<BodyLimits, 'maxBytes' | 'stopping'>;
  branch: BranchLimits;
  budget: { pushesMax: number; bytesMax: number };
  connectionsMax: number;
  headersMs: number;
  /** How often a leader says that it lives, and for how long one may not before a push forwarded to it is given up. */
  forward: { aliveMs: number; silenceMs: number };
}

export interface PushAppOptions {
  publisher: Publisher;
  auth: Auth;
  spool: Spool;
  leader: Pick<Elector, 'leading' | 'holder'>;
  clock: Clock;
  log: Log;
  metrics: PushMetrics;
  /** Absent or null: trainers speak plain HTTP. */
  tls?: TlsFiles | null;
  /** Whom the leader's certificate may be signed by where it speaks TLS; absent or null: whom the system trusts. */
  ca?: Pick<CaFile, 'current'> | null;
  running?: Running;
  /** Cuts pushes off whose bodies are not whole yet, with its reason. */
  stopping?: AbortSignal;
  limits?: Partial<PushLimits>;
  /** From so many pods on they pass bodies on to each other; absent: never. */
  relayFrom?: number;
}

const LIMITS: PushLimits = {
  body: { windowMs: 10_000, windowBytesMin: 64 * 1024, ...BODY_PACE },
  branch: { windowBytes: 4 * 2 ** 20, stallMs: 3_000, startMs: 10_000 },
  budget: { pushesMax: 32, bytesMax: 16 * 2 ** 30 },
  connectionsMax: 512,
  headersMs: 10_000,
  forward: { aliveMs: 1_000, silenceMs: 4_000 },
};
const HEADER_BYTES_MAX = 32 * 1024;
/** The last resort; the body has its own clock, which knows how much is to come. */
const REQUEST_MS = 3_600_000;
const ADAPTER = '/v1/namespaces/:namespace/adapters/:name';
const REVISIONS = `${ADAPTER}/revisions`;
const ROLLBACK = `${ADAPTER}/rollback`;
const WHY = `${ADAPTER}/why`;
const NAMESPACE = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;
const OBJECT_NAME = /^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/;

declare module 'fastify' {
  interface FastifyRequest {
    caller: Caller | null;
    authMs: number;
  }
  interface FastifyContextConfig {
    /** What the caller must be allowed to do; a route without it is closed. */
    verb?: Target['verb'];
    /** It changes what is served, and so is written down. */
    action?: Action;
  }
}

interface Params {
  namespace: string;
  name: string;
}

/** The endpoint that trainers push to. See README.md for the protocol. */
export function buildPushApp(options: PushAppOptions): FastifyInstance {
  const limits = { ...LIMITS, ...options.limits };
  const app = createApp(limits, options);
  const turns = new Turns();
  const budget = new Budget(limits.budget, (pushes, bytes) => options.metrics.inFlight(pushes, bytes));
  const { publisher, spool, leader, clock, log } = options;
  const { running = new Running(), stopping = new AbortController().signal } = options;
  const { relayFrom = Number.POSITIVE_INFINITY, tls = null, ca = null } = options;
  const bounds = { turns, budget, stopping, body: limits.body, branch: { ...limits.branch, relayFrom } };
  const forwarding = { leader, silenceMs: limits.forward.silenceMs, tls, ca };
  const deps = { publisher, spool, hashing: new HashThread(), clock, log, ...bounds };

  followTraces(app);
  app.addHook('onRequest', async (request, reply) => {
    if (request.headers[FORWARDED] !== undefined) sayAlive(reply, limits.forward.aliveMs);
    await authorize(request, options);
  });
  const strangers = new Seldom(clock);
  const refusing = { ...options, strangers };
  app.setErrorHandler(async (error, request, reply) => refuse(error, request, reply, refusing));
  app.setNotFoundHandler(async (request, reply) => {
    await refuse(new LorikeetError('route_not_found', 'There is no such route'), request, reply, refusing);
    return reply;
  });

  // Only the leader knows what is desired: whoever else is asked passes the call on, its body unread.
  app.addHook('preHandler', async (request, reply) => {
    const { verb, action } = request.routeOptions.config;
    if (leader.leading !== null || verb === undefined) return;
    const passing = forward(request, reply, forwarding);
    await (action === undefined ? passing : running.track(passing));
    return reply;
  });

  app.put<{ Params: Params }>(
    REVISIONS,
    { config: { verb: 'update', action: 'push' } },
    async (request, reply) => {
      const { namespace, name } = request.params;
      const target = { namespace, name, pushedBy: request.caller?.username ?? '', authMs: request.authMs };
      const result = await running.track(push(request, reply, target, deps));
      report(request, result, options);
      return result;
    },
  );

  app.post<{ Params: Params }>(
    ROLLBACK,
    { config: { verb: 'update', action: 'rollback' } },
    async (request, reply) => {
      const { namespace, name } = request.params;
      const target = { namespace, name, askedBy: request.caller?.username ?? '', authMs: request.authMs };
      const result = await running.track(rollback(request, reply, target, deps));
      const who = whoAsks(request);
      if (who !== null) auditAnswered(log, who, result, { previous: result.previous, ...result.timings });
      return result;
    },
  );

  app.get<{ Params: Params }>(REVISIONS, { config: { verb: 'get' } }, async (request) => {
    const { namespace, name } = request.params;
    const held = publisher.held(namespace, name);
    return { servedName: held.servedName, desired: held.desired, revisions: listRevisions(held) };
  });
  app.get<{ Params: Params }>(WHY, { config: { verb: 'get' } }, async (request) => {
    const { namespace, name } = request.params;
    return publisher.why(namespace, name);
  });
  return app;
}

function createApp({ connectionsMax, headersMs }: PushLimits, { tls, log }: PushAppOptions): FastifyInstance {
  const app = fastify({
    logger: false,
    exposeHeadRoutes: false,
    // At the end running pushes may finish; whoever closes the app sets the deadline.
    forceCloseConnections: 'idle',
    requestTimeout: REQUEST_MS,
    routerOptions: { maxParamLength: 256 },
    ...listenerOptions(tls, {
      maxHeaderSize: HEADER_BYTES_MAX,
      headersTimeout: headersMs,
      connectionsCheckingInterval: Math.min(1_000, headersMs),
    }),
    clientErrorHandler: refuseUnreadable(HEADER_BYTES_MAX),
    frameworkErrors: (_error, _request, reply) => {
      void send(reply, answerOf(new LorikeetError('malformed_request', 'The path cannot be read')));
    },
  });
  tls?.follow(app.server, log);
  keepRoom(app.server, { connectionsMax, roomFor: Math.ceil(connectionsMax / 16) });
  // Not before the caller is known and the headers are good: see push.ts.
  app.server.on('checkContinue', (request, response) => app.server.emit('request', request, response));
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', (_request, _payload, done) => done(null));
  app.decorateRequest('caller', null);
  app.decorateRequest('authMs', 0);
  return app;
}

/** One hook for all routes, known or not: nothing is answered to a stranger, and no byte of a body is read for one. */
async function authorize(request: FastifyRequest, { auth, clock }: PushAppOptions): Promise<void> {
  const startedAt = clock.monotonicMs();
  const { verb } = request.routeOptions.config;
  const { namespace = '', name = '' } = (request.params ?? {}) as Partial<Params>;
  if (verb !== undefined) requireNames(namespace, name);
  const target = verb === undefined ? null : { namespace, name, verb };
  request.caller = await auth.allow(bearerOf(request.headers.authorization), target);
  request.authMs = clock.monotonicMs() - startedAt;
  if (target === null && !request.is404) throw new LorikeetError('forbidden', 'This route is closed');
}

function requireNames(namespace: string, name: string): void {
  if (NAMESPACE.test(namespace) && OBJECT_NAME.test(name) && ObjectName.safeParse(name).success) return;
  throw new LorikeetError(
    'invalid_name',
    'Expected the names of a namespace and of a LoraAdapter in the path',
  );
}

function report(request: FastifyRequest, result: PushReply, { log, metrics }: PushAppOptions): void {
  const { timings, swap, noop, bytes } = result;
  metrics.pushed(noop ? 'noop' : 'ok', bytes, timings);
  const who = whoAsks(request);
  if (who !== null) auditAnswered(log, who, result, { skewMs: swap?.skewMs ?? null, ...timings });
}

async function refuse(
  error: unknown,
  request: FastifyRequest,
  reply: FastifyReply,
  { log, metrics, strangers }: PushAppOptions & { strangers: Seldom },
): Promise<FastifyReply> {
  const refusal = refusalOf(error);
  const { namespace, name } = (request.params ?? {}) as Partial<Params>;
  // Of a stranger, or of a path that did not pass the checks, nothing is repeated.
  const known =
    request.caller === null ? {} : { adapter: `${namespace}/${name}`, by: request.caller.username };
  if (error instanceof ClientGone) {
    metrics.pushed('client_gone', 0, null);
    auditRefused(log, request, 'client_gone');
    reply.hijack();
    request.raw.socket.destroy();
    return reply;
  }
  metrics.pushed(refusal.code, 0, null);
  // The message may quote what the client sent, and that may be a secret in the wrong place.
  const cause = (refusal.cause as NodeJS.ErrnoException | undefined)?.code;
  const fields = { ...known, code: refusal.code, field: refusal.field, cause };
  if (refusal.code === 'internal') log.error({ ...fields, err: error }, 'push failed');
  auditRefused(log, request, refusal.code, { field: refusal.field, cause });
  if (request.caller === null) tellOfStranger(fields, log, strangers);
  await send(reply, answerOf(refusal));
  return reply;
}

/** Anybody can be refused as often as they like; the metric counts each. */
function tellOfStranger(fields: object, log: Log, strangers: Seldom): void {
  const told = strangers.next();
  if (told !== null) log.info({ ...fields, ...told }, 'a stranger was refused');
}
