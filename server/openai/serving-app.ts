import type { FastifyInstance } from 'fastify';
import { chat } from './chat.ts';
import { completions } from './completions.ts';
import { OpenAiError } from './errors.ts';
import { answer, buildHttpApp } from './http-app.ts';
import { describeModel, listModels } from './models.ts';
import type { Serving } from './serving.ts';
import { detokenize, tokenize } from './tokenize.ts';

export function buildServingApp(serving: Serving, connectionsMax?: number): FastifyInstance {
  const app = buildHttpApp({
    ...serving,
    ...(connectionsMax === undefined ? {} : { connectionsMax }),
  });
  addRoutes(app, serving);
  return app;
}

function addRoutes(app: FastifyInstance, serving: Serving): void {
  app.post('/v1/completions', (request, reply) => completions(serving, request.body, reply));
  app.post('/v1/chat/completions', (request, reply) => chat(serving, request.body, reply));
  addModelRoutes(app, serving);
  app.post('/tokenize', (request, reply) => tokenize(serving, request.body, reply));
  app.post('/detokenize', async (request) => detokenize(serving, request.body));
  app.get('/health', async (_, reply) => {
    if (serving.engine.failed !== null)
      return answer(reply, new OpenAiError('not_ready', 'The engine failed.'));
    return { status: 'ok' };
  });
  app.get('/metrics', async (_, reply) => {
    void reply.type(serving.metrics.contentType);
    return await serving.metrics.text();
  });
}

/** Which models there are, and whether they can be asked for. */
export function addModelRoutes(
  app: FastifyInstance,
  serving: Pick<Serving, 'model' | 'adapters' | 'notReady'>,
): void {
  app.get('/v1/models', async () => listModels(serving));
  app.get<{ Params: { '*': string } }>('/v1/models/*', async (request) =>
    describeModel(serving, request.params['*']),
  );
  app.get('/ready', async (_, reply) => {
    const reason = serving.notReady();
    if (reason === null) return { status: 'ready' };
    const refusal = new OpenAiError('not_ready', reason.message);
    return reply.code(refusal.status).send({ error: { ...refusal.toJSON().error, reason: reason.code } });
  });
}
