import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { OpenAiError } from '../openai/errors.ts';
import { answer, buildHttpApp, type HttpOptions } from '../openai/http-app.ts';
import type { NotReady, Serving } from '../openai/serving.ts';
import { addModelRoutes } from '../openai/serving-app.ts';
import type { Forwarder } from './forward.ts';

/** By which an engine is given, or rid of, adapters: they come by the admin API alone. */
const ADAPTER_ROUTES = /load_lora_adapter/;
/** What clients ask an engine, new routes too. */
const CLIENT_ROUTES = /^\/(?:v\d|inference)\//;
/** Of routes beside these, those by which an engine is steered: its port is open to this pod alone, and this one is not. */
const STEERING =
  /abort|cache|config|dump|freeze|internal|logging|memory|pause|continue|profile|record|reset|resume|rpc|scale|server_info|session|sleep|slow|trace|wake|weight/i;

function isForbidden(url: string): boolean {
  const path = url.split('?')[0] ?? '';
  return ADAPTER_ROUTES.test(path) || (!CLIENT_ROUTES.test(path) && STEERING.test(path));
}

type Query = { Querystring: Record<string, unknown> };

/** A picture in a message is some megabytes of base64. */
const BODY_BYTES_MAX = 64 << 20;

export interface SidecarServing extends HttpOptions {
  model: Serving['model'];
  adapters: Serving['adapters'];
  forwarder: Forwarder;
  metricsText(): Promise<string>;
  /** What vLLM's configuration says of the model and of adapters, and which weights a model means: for the bridge. */
  serverInfo(query: Record<string, unknown>): object;
  weightInfo(query: Record<string, unknown>): object;
  notReady(): NotReady;
}

/** The engine's own API, with the models that are here. */
export function buildSidecarApp(serving: SidecarServing): FastifyInstance {
  const app = buildHttpApp({ ...serving, bodyBytesMax: BODY_BYTES_MAX, readsJson: false });
  app.addContentTypeParser('*', (_request, payload, done) => done(null, payload));
  const { forwarder } = serving;
  addModelRoutes(app, serving);
  app.get('/health', async () => ({ status: 'ok' }));
  app.get('/metrics', async (_, reply) => {
    void reply.type('text/plain; version=0.0.4; charset=utf-8');
    return await serving.metricsText();
  });
  app.get<Query>('/server_info', async ({ query }) => serving.serverInfo(query));
  app.get<Query>('/weight_info', async ({ query }) => serving.weightInfo(query));
  // What is cached is cached by content.
  app.post('/reset_prefix_cache', async (_, reply) => reply.send());
  app.all('/*', (request: FastifyRequest, reply: FastifyReply) => {
    if (isForbidden(request.url)) {
      const message = 'The engine behind this server is steered by the admin API alone.';
      return answer(reply, new OpenAiError('route_not_found', message));
    }
    const isJson = Buffer.isBuffer(request.body) && request.method === 'POST';
    return isJson ? forwarder.generate(request, reply) : forwarder.pass(request, reply);
  });
  return app;
}
