import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { Registry } from '../adapters/registry.ts';
import { OpenAiError } from '../openai/errors.ts';
import type { Serving } from '../openai/serving.ts';
import { isBearer } from '../transfer/bearer.ts';
import { generate } from './generate.ts';
import { Loads } from './loads.ts';
import type { LoraRoot } from './lora-root.ts';
import { openApi } from './openapi.ts';
import { Pauses } from './pauses.ts';
import { type EngineFacts, serverInfo } from './server-info.ts';
import { weightInfo } from './weight-info.ts';

export interface Dialect {
  serving: Serving;
  registry: Registry;
  engine: EngineFacts;
  resetPrefixCache: () => void;
  /** Null: nothing is loaded. */
  root: LoraRoot | null;
  /** Null: whoever reaches the port may load, since only this machine does. */
  token: (() => string | Promise<string>) | null;
}

type Query = { Querystring: Record<string, unknown> };

/** The routes of vLLM through which trainers bring adapters and look at the server. */
export function speakVllm(app: FastifyInstance, dialect: Dialect): void {
  const { serving, registry, engine, root, token, resetPrefixCache } = dialect;
  const loads = new Loads(registry, root);
  const pauses = new Pauses();
  const guarded = { onRequest: (request: FastifyRequest) => requireMayLoad(request, token) };

  app.post('/v1/load_lora_adapter', guarded, async ({ body }, reply) => {
    const { name } = await loads.load(body);
    return say(reply, `Success: LoRA adapter '${name}' added successfully.`);
  });
  // prime-rl and SkyRL load each version under the same name.
  app.post('/load_lora_adapter', guarded, async ({ body }) => {
    await loads.load(body, { inPlace: true });
    return { status: 'ok' };
  });
  app.post('/skyrl/v1/load_lora_adapter', guarded, async ({ body }) => {
    const { name, id } = await loads.load(body, { inPlace: true });
    return { status: 'ok', lora_name: name, lora_int_id: id };
  });
  app.post('/v1/unload_lora_adapter', guarded, async ({ body }, reply) => {
    const name = await loads.unload(body);
    return say(reply, `Success: LoRA adapter '${name}' removed successfully.`);
  });

  app.register(async (bodiless) => {
    ignoreBodies(bodiless);
    bodiless.post<Query>('/pause', async ({ query }) => pauses.pause(query));
    bodiless.post('/resume', async () => pauses.resume());
    bodiless.post('/reset_prefix_cache', async (_, reply) => {
      resetPrefixCache();
      return reply.send();
    });
  });

  app.get('/is_paused', async () => ({ is_paused: pauses.isPaused }));
  app.get<Query>('/server_info', async ({ query }) => serverInfo(serving.model, engine, query));
  app.get('/get_world_size', async () => ({ world_size: 1 }));
  app.get<Query>('/weight_info', async ({ query }) => weightInfo(registry, query));
  app.get('/liveness', async () => ({ status: 'ok' }));
  app.get('/openapi.json', async () => openApi());

  app.post('/inference/v1/generate', (request, reply) => generate(serving, request.body, reply));
}

/**
 * Before a byte of the body is read. Pages in a browser on this machine come through loopback too; they alone send
 * an Origin.
 */
async function requireMayLoad({ headers }: FastifyRequest, token: Dialect['token']): Promise<void> {
  if (token === null && headers.origin === undefined) return;
  if (token !== null && isBearer(headers.authorization, await token())) return;
  throw new OpenAiError('unauthenticated', 'Expected the admin token as bearer token');
}

/** Some clients say that their body is JSON and send none. */
function ignoreBodies(app: FastifyInstance): void {
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', (_request, body, done) => {
    body.resume();
    done(null);
  });
}

function say(reply: FastifyReply, text: string): FastifyReply {
  return reply.type('text/plain; charset=utf-8').send(text);
}
