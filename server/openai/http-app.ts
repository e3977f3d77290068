import {
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
  fastify,
  type onRequestHookHandler,
} from 'fastify';
import type { Logger } from 'pino';
import { inTrace } from '../contract/trace.ts';
import { keepRoom } from '../transfer/connections.ts';
import { refuseUnreadable } from '../transfer/refusal.ts';
import { urlOf } from '../transfer/tls-files.ts';
import { followTraces } from '../transfer/trace-hook.ts';
import type { Account, ByteBudget } from './byte-budget.ts';
import { answerOf, isDisconnected, OpenAiError, toOpenAiError } from './errors.ts';
import { parseJsonBody } from './json-body.ts';
import { cutOffUnread } from './unread.ts';

declare module 'fastify' {
  interface FastifyRequest {
    /** Its part of the byte budget. */
    account: Account;
  }
}

/** Bytes of a request body: a prompt of the longest context as token ids, with room. */
const BODY_BYTES_MAX = 8 << 20;
const HEADER_BYTES_MAX = 16 << 10;
const HEADERS_MS_MAX = 10_000;
const REQUEST_MS_MAX = 30_000;
const CONNECTIONS_MAX = 4096;
/** Answered on the last free connections too. */
const PROBES = new Set(['/health', '/ready', '/metrics']);

/** The HTTP status that proxies log for a client that went away. */
const CLIENT_CLOSED_REQUEST = 499;

export interface HttpOptions {
  budget: ByteBudget;
  metrics: { requestDone(endpoint: string, code: number, seconds: number): void };
  log: Logger;
  connectionsMax?: number;
  bodyBytesMax?: number;
  /** False: a body of JSON is handed on as its bytes. */
  readsJson?: boolean;
}

/** An app without routes that bounds what it takes, and refuses in OpenAI's envelope. */
export function buildHttpApp(options: HttpOptions): FastifyInstance {
  const {
    budget,
    connectionsMax = CONNECTIONS_MAX,
    bodyBytesMax = BODY_BYTES_MAX,
    readsJson = true,
  } = options;
  const app = fastify({
    bodyLimit: bodyBytesMax,
    requestTimeout: REQUEST_MS_MAX,
    http: {
      headersTimeout: HEADERS_MS_MAX,
      maxHeaderSize: HEADER_BYTES_MAX,
      connectionsCheckingInterval: 2000,
    },
    clientErrorHandler: refuseUnreadable(HEADER_BYTES_MAX, answerOf),
    frameworkErrors: (error, _request, reply) => void answer(reply, toOpenAiError(error)),
    // Fastify's own answer to a request on a kept-alive connection has another shape; see closeConnectionsWhenDone.
    return503OnClosing: false,
    forceCloseConnections: 'idle',
    exposeHeadRoutes: false,
    // Some trainers ask for /health/.
    routerOptions: { ignoreTrailingSlash: true },
  });
  const room = keepRoom(app.server, { connectionsMax, roomFor: Math.ceil(connectionsMax / 16) });
  followTraces(app);
  closeConnectionsWhenDone(app);
  app.decorateRequest('account');
  app.removeContentTypeParser('application/json');
  app.addContentTypeParser(
    'application/json',
    { parseAs: 'buffer' },
    (request: FastifyRequest, body: Buffer, done) => {
      let content: unknown = body;
      try {
        request.account.setBody(body.length);
        if (readsJson) content = parseJsonBody(body);
      } catch (error) {
        done(error as Error);
        return;
      }
      // What follows has its own errors.
      done(null, content);
    },
  );
  // Fastify's onResponse does not come where the client left before its answer.
  const begin = atOnce((request, reply) => {
    const account = budget.open();
    request.account = account;
    cutOffUnread(reply);
    reply.raw.once('close', () => {
      account.close();
      inTrace(request.trace, () => observe(options, request, reply));
    });
    if (room.isFull() && !PROBES.has(request.routeOptions.url ?? '')) {
      void reply.header('connection', 'close');
      throw new OpenAiError('overloaded', 'As many connections are busy as may be.');
    }
    request.account.setBody(announcedBytes(request, bodyBytesMax));
  });
  app.addHook('onRequest', begin);
  app.addHook('onRequest', atOnce(refuseEncodings));
  app.setErrorHandler((error, request, reply) => refuse(options, error, request, reply));
  app.setNotFoundHandler(({ method, url }, reply) =>
    answer(reply, new OpenAiError('route_not_found', `There is no ${method} ${url.split('?')[0]} here.`)),
  );
  return app;
}

/** A hook that is over in its turn of the event loop: a promise would put off whatever comes after it. */
function atOnce(work: (request: FastifyRequest, reply: FastifyReply) => void): onRequestHookHandler {
  return (request, reply, done) => {
    try {
      work(request, reply);
    } catch (error) {
      done(error as Error);
      return;
    }
    done();
  };
}

/** A body that does not say how long it is may be as long as may be, until it is here. */
function announcedBytes({ headers }: FastifyRequest, bytesMax: number): number {
  if (headers['transfer-encoding'] !== undefined) return bytesMax;
  return Math.min(Number(headers['content-length'] ?? 0), bytesMax);
}

/** A connection that is kept alive would hold a closing server up after its last response. */
function closeConnectionsWhenDone(app: FastifyInstance): void {
  let closing = false;
  app.addHook('preClose', async () => {
    closing = true;
  });
  const refuseIfClosing = atOnce(() => {
    if (closing) throw new OpenAiError('shutting_down', 'The server is shutting down.');
  });
  app.addHook('onRequest', refuseIfClosing);
  app.addHook('onResponse', async () => {
    if (closing) setImmediate(() => app.server.closeIdleConnections());
  });
}

/** Fastify would hand a compressed body to the JSON parser as if it were plain. */
function refuseEncodings(request: FastifyRequest): void {
  const encoding = request.headers['content-encoding'];
  if (encoding !== undefined && encoding !== 'identity') {
    throw new OpenAiError('unsupported_media_type', `Expected no content-encoding but received ${encoding}`);
  }
}

function refuse({ log }: HttpOptions, error: unknown, request: FastifyRequest, reply: FastifyReply): void {
  if (isDisconnected(error)) {
    if (!reply.sent) void reply.code(CLIENT_CLOSED_REQUEST).send();
    return;
  }
  const refusal = toOpenAiError(error);
  if (refusal.status === 500) {
    log.error({ err: error, method: request.method, url: request.routeOptions.url }, 'request failed');
  }
  void answer(reply, refusal);
}

export function answer(reply: FastifyReply, refusal: OpenAiError): FastifyReply {
  const { status, headers, body } = answerOf(refusal);
  return reply.code(status).headers(headers).send(body);
}

function observe({ metrics, log }: HttpOptions, request: FastifyRequest, reply: FastifyReply): void {
  const endpoint = request.routeOptions.url ?? 'none';
  const code = reply.raw.writableFinished ? reply.statusCode : CLIENT_CLOSED_REQUEST;
  const seconds = reply.elapsedTime / 1000;
  metrics.requestDone(endpoint, code, seconds);
  log.debug({ method: request.method, endpoint, code, seconds }, 'answered');
}

/** The URL where it listens then. */
export async function listen(app: FastifyInstance, host: string, port: number): Promise<string> {
  await app.listen({ host, port });
  return urlOf(app.server);
}
