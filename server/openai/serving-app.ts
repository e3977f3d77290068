import { type FastifyInstance, type FastifyReply, type FastifyRequest, fastify } from 'fastify';
import { keepRoom } from '../transfer/connections.ts';
import { refuseUnreadable } from '../transfer/refusal.ts';
import type { Account } from './byte-budget.ts';
import { chat } from './chat.ts';
import { completions } from './completions.ts';
import { answerOf, isDisconnected, OpenAiError, toOpenAiError } from './errors.ts';
import { parseJsonBody } from './json-body.ts';
import { describeModel, listModels } from './models.ts';
import type { Serving } from './serving.ts';
import { detokenize, tokenize } from './tokenize.ts';
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

export function buildServingApp(serving: Serving, connectionsMax: number = CONNECTIONS_MAX): FastifyInstance {
  const app = fastify({
    bodyLimit: BODY_BYTES_MAX,
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
  closeConnectionsWhenDone(app);
  app.decorateRequest('account');
  app.removeContentTypeParser('application/json');
  app.addContentTypeParser(
    'application/json',
    { parseAs: 'buffer' },
    async (request: FastifyRequest, body: Buffer) => {
      request.account.setBody(body.length);
      return parseJsonBody(body);
    },
  );
  // Fastify's onResponse does not come where the client left before its answer.
  app.addHook('onRequest', async (request, reply) => {
    reply.raw.once('close', () => observe(serving, request, reply));
    cutOffUnread(reply);
    request.account = serving.budget.open();
    reply.raw.once('close', () => request.account.close());
    if (room.isFull() && !PROBES.has(request.routeOptions.url ?? '')) {
      void reply.header('connection', 'close');
      throw new OpenAiError('overloaded', 'As many connections are busy as may be.');
    }
    request.account.setBody(announcedBytes(request));
  });
  app.addHook('onRequest', refuseEncodings);
  app.setErrorHandler((error, request, reply) => refuse(serving, error, request, reply));
  app.setNotFoundHandler(({ method, url }, reply) =>
    answer(reply, new OpenAiError('route_not_found', `There is no ${method} ${url.split('?')[0]} here.`)),
  );
  addRoutes(app, serving);
  return app;
}

function addRoutes(app: FastifyInstance, serving: Serving): void {
  app.post('/v1/completions', (request, reply) => completions(serving, request.body, reply));
  app.post('/v1/chat/completions', (request, reply) => chat(serving, request.body, reply));
  app.get('/v1/models', async () => listModels(serving));
  app.get<{ Params: { '*': string } }>('/v1/models/*', async (request) =>
    describeModel(serving, request.params['*']),
  );
  app.post('/tokenize', (request, reply) => tokenize(serving, request.body, reply));
  app.post('/detokenize', async (request) => detokenize(serving, request.body));
  app.get('/health', async (_, reply) => {
    if (serving.engine.failed !== null)
      return answer(reply, new OpenAiError('not_ready', 'The engine failed.'));
    return { status: 'ok' };
  });
  app.get('/ready', async (_, reply) => {
    const reason = serving.notReady();
    if (reason === null) return { status: 'ready' };
    const refusal = new OpenAiError('not_ready', reason.message);
    return reply.code(refusal.status).send({ error: { ...refusal.toJSON().error, reason: reason.code } });
  });
  app.get('/metrics', async (_, reply) => {
    void reply.type(serving.metrics.contentType);
    return await serving.metrics.text();
  });
}

/** A body that does not say how long it is may be as long as may be, until it is here. */
function announcedBytes({ headers }: FastifyRequest): number {
  if (headers['transfer-encoding'] !== undefined) return BODY_BYTES_MAX;
  return Math.min(Number(headers['content-length'] ?? 0), BODY_BYTES_MAX);
}

/** A connection that is kept alive would hold a closing server up after its last response. */
function closeConnectionsWhenDone(app: FastifyInstance): void {
  let closing = false;
  app.addHook('preClose', async () => {
    closing = true;
  });
  app.addHook('onRequest', async () => {
    if (closing) throw new OpenAiError('shutting_down', 'The server is shutting down.');
  });
  app.addHook('onResponse', async () => {
    if (closing) setImmediate(() => app.server.closeIdleConnections());
  });
}

/** Fastify would hand a compressed body to the JSON parser as if it were plain. */
async function refuseEncodings(request: FastifyRequest): Promise<void> {
  const encoding = request.headers['content-encoding'];
  if (encoding !== undefined && encoding !== 'identity') {
    throw new OpenAiError('unsupported_media_type', `Expected no content-encoding but received ${encoding}`);
  }
}

function refuse(serving: Serving, error: unknown, request: FastifyRequest, reply: FastifyReply): void {
  if (isDisconnected(error)) {
    if (!reply.sent) void reply.code(CLIENT_CLOSED_REQUEST).send();
    return;
  }
  const refusal = toOpenAiError(error);
  if (refusal.status === 500) {
    serving.log.error(
      { err: error, method: request.method, url: request.routeOptions.url },
      'request failed',
    );
  }
  void answer(reply, refusal);
}

function answer(reply: FastifyReply, refusal: OpenAiError): FastifyReply {
  const { status, headers, body } = answerOf(refusal);
  return reply.code(status).headers(headers).send(body);
}

function observe(serving: Serving, request: FastifyRequest, reply: FastifyReply): void {
  const endpoint = request.routeOptions.url ?? 'none';
  const code = reply.raw.writableFinished ? reply.statusCode : CLIENT_CLOSED_REQUEST;
  const seconds = reply.elapsedTime / 1000;
  serving.metrics.requestDone(endpoint, code, seconds);
  serving.log.debug({ method: request.method, endpoint, code, seconds }, 'answered');
}
