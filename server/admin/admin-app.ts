import fastify, {
  type FastifyError,
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
} from 'fastify';
import type { Logger } from 'pino';
import type { Registry } from '../adapters/registry.ts';
import { NAME_LENGTH_MAX } from '../contract/adapter-api.ts';
import { LorikeetError } from '../contract/errors.ts';
import { quoted } from '../contract/strict-json.ts';
import { isBearer } from '../transfer/bearer.ts';
import type { CaFile } from '../transfer/ca-file.ts';
import { keepRoom } from '../transfer/connections.ts';
import { bodyDeadlineMs } from '../transfer/limits.ts';
import { answerOf, refuseUnreadable } from '../transfer/refusal.ts';
import type { RelayLimits } from '../transfer/relay.ts';
import { listenerOptions, type TlsFiles } from '../transfer/tls-files.ts';
import { followTraces } from '../transfer/trace-hook.ts';
import { openOnward } from './onward.ts';
import { registerAdminRoutes } from './routes.ts';

const HEADER_BYTES_MAX = 32 << 10;
const HEADERS_MS_MAX = 10_000;
/** Between two calls on one connection; a call that is served may take longer. */
const IDLE_MS_MAX = 60_000;
/** How long the rest of a refused body is read, so that the client comes to read the refusal. */
const LINGER_MS = 5_000;
const CONNECTIONS_MAX = 256;
const PUBLIC_ROUTES = new Set(['/healthz']);

export interface AdminAppOptions {
  registry: Registry;
  /** Every call but those of public routes carries what it gives then as bearer token. */
  token: () => string | Promise<string>;
  /** Absent or null: callers speak plain HTTP. */
  tls?: TlsFiles | null;
  /** Of the pods that bodies go on to over TLS; absent or null: to none. */
  relayCa?: CaFile | null;
  metrics?: AdminMetrics;
  relayLimits?: Partial<RelayLimits>;
  /** Why the pod serves nobody for now, and so says nothing of itself; absent or null: it does. */
  away?: () => LorikeetError | null;
  log: Logger;
}

/** Hears of each call, and of each that was refused. */
export interface AdminMetrics {
  adminCallDone(route: string, code: number, seconds: number): void;
  refused(code: string): void;
}

/** The admin API as an app of its own port; nothing but /healthz answers without the token. */
export function buildAdminApp({
  registry,
  token,
  tls = null,
  relayCa = null,
  metrics,
  relayLimits,
  away = () => null,
  log,
}: AdminAppOptions): FastifyInstance {
  const app = fastify({
    logger: false,
    keepAliveTimeout: IDLE_MS_MAX,
    requestTimeout: bodyDeadlineMs(registry.limits.maxAdapterBytes) + HEADERS_MS_MAX,
    bodyLimit: registry.limits.maxAdapterBytes,
    // In percent-encoding.
    routerOptions: { maxParamLength: 3 * NAME_LENGTH_MAX },
    ...listenerOptions(tls, {
      maxHeaderSize: HEADER_BYTES_MAX,
      headersTimeout: HEADERS_MS_MAX,
      connectionsCheckingInterval: 2_000,
    }),
    clientErrorHandler: refuseUnreadable(HEADER_BYTES_MAX),
    frameworkErrors: (error, _request, reply) => refuse(reply, fromFramework(error)),
  });
  tls?.follow(app.server, log);
  keepRoom(app.server, { connectionsMax: CONNECTIONS_MAX, roomFor: CONNECTIONS_MAX / 16 });
  // Whoever asks before sending a body is invited only when the body will be read.
  app.server.on('checkContinue', (request, response) => app.routing(request, response));
  app.removeAllContentTypeParsers();
  // Handlers read the raw request themselves, within their own limits.
  app.addContentTypeParser('*', (_request, _body, done) => done(null));
  followTraces(app);
  app.addHook('onRequest', bearerHook(token));
  app.addHook('onRequest', async ({ routeOptions }) => {
    const refusal = PUBLIC_ROUTES.has(routeOptions.url ?? '') ? null : away();
    if (refusal !== null) throw refusal;
  });
  app.addHook('onResponse', async (request, reply) => {
    drain(request);
    const route = request.routeOptions.url ?? 'none';
    metrics?.adminCallDone(route, reply.statusCode, reply.elapsedTime / 1000);
  });
  app.setNotFoundHandler((request, reply) => {
    const { method } = request;
    const message = `No route ${method} ${quoted(request.url)}`;
    return refuse(reply, new LorikeetError('route_not_found', message, { field: 'url' }));
  });
  app.setErrorHandler((error: FastifyError | LorikeetError, _request, reply) => {
    const refusal = error instanceof LorikeetError ? error : fromFramework(error);
    metrics?.refused(refusal.code);
    if (refusal.code === 'internal') log.error({ err: error }, 'an admin call failed');
    return refuse(reply, refusal);
  });
  app.get('/healthz', async () => ({ status: 'ok' }));
  registerAdminRoutes(app, { registry, onward: openOnward({ tls, relayCa, limits: relayLimits }) });
  return app;
}

/** Runs before anything of the body is read, for unknown routes too. */
function bearerHook(token: AdminAppOptions['token']) {
  return async (request: FastifyRequest) => {
    if (PUBLIC_ROUTES.has(request.routeOptions.url ?? '')) return;
    if (isBearer(request.headers.authorization, await token())) return;
    throw new LorikeetError('unauthenticated', 'Expected the admin token as bearer token', {
      field: 'authorization',
    });
  };
}

function refuse(reply: FastifyReply, error: LorikeetError): FastifyReply {
  const { status, headers, body } = answerOf(error);
  return reply.code(status).headers(headers).send(body);
}

/** Fastify's own errors, decided on by their codes; their texts may hold what the client sent. */
function fromFramework(error: FastifyError): LorikeetError {
  if (error.code?.startsWith('FST_ERR_CTP_')) {
    return new LorikeetError('unsupported_media_type', 'Expected another content type or body', {
      field: 'content-type',
      cause: error,
    });
  }
  if (error.statusCode !== undefined && error.statusCode >= 400 && error.statusCode < 500) {
    return new LorikeetError('malformed_request', 'The request could not be read', {
      actual: error.code,
      cause: error,
    });
  }
  return new LorikeetError('internal', 'The call failed inside the server', { cause: error });
}

/** Node reads the rest of an unread body after the reply; this bounds how long. */
function drain({ raw }: FastifyRequest): void {
  if (raw.complete) return;
  const timer = setTimeout(() => raw.socket.destroy(), LINGER_MS);
  raw.once('close', () => clearTimeout(timer));
  raw.once('end', () => clearTimeout(timer));
}
