import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';

/** What pages may read besides the body. */
const EXPOSED = 'x-lora-revision, x-lora-step, x-request-id, retry-after';
/** How long a browser may keep the answer to its question; as vLLM's. */
const PREFLIGHT_SECONDS = 600;

/** Lets pages of these origins use the API from a browser; `*` is any. Without one the API says nothing of origins. */
export function allowOrigins(app: FastifyInstance, origins: readonly string[]): void {
  if (origins.length === 0) return;
  const any = origins.includes('*');
  app.addHook('onRequest', async (request, reply) => {
    if (!any) void reply.header('vary', 'origin');
    const { origin } = request.headers;
    if (origin === undefined || !(any || origins.includes(origin))) return;
    void reply.headers({
      'access-control-allow-origin': any ? '*' : origin,
      'access-control-expose-headers': EXPOSED,
    });
    if (isPreflight(request)) return answerPreflight(request, reply);
  });
}

function isPreflight({ method, headers }: FastifyRequest): boolean {
  return method === 'OPTIONS' && headers['access-control-request-method'] !== undefined;
}

/** Every header is welcome: those that we do not know we do not read. */
function answerPreflight({ headers }: FastifyRequest, reply: FastifyReply): FastifyReply {
  return reply
    .code(204)
    .headers({
      'access-control-allow-methods': 'GET, POST',
      'access-control-allow-headers': headers['access-control-request-headers'] ?? '*',
      'access-control-max-age': String(PREFLIGHT_SECONDS),
    })
    .send();
}
