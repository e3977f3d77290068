import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { clientGone } from '../openai/client.ts';
import { OpenAiError } from '../openai/errors.ts';
import { isBearer } from '../transfer/bearer.ts';
import { openApi } from './openapi.ts';
import { type PauseMode, readMode } from './pauses.ts';

export interface Loaded {
  name: string;
  /** Counts the loads of this server: vLLM's number of an adapter, which must differ. */
  id: number;
}

/** Who answers in the words of vLLM: a pod for itself, or the bridge for a fleet. */
export interface Speaker {
  load(body: unknown, options?: { inPlace?: boolean }): Promise<Loaded>;
  /** Returns the name that is gone. */
  unload(body: unknown): Promise<string>;
  serverInfo(query: Record<string, unknown>): object | Promise<object>;
  weightInfo(query: Record<string, unknown>): object | Promise<object>;
  resetPrefixCache(): void | Promise<void>;
  pauses: {
    readonly isPaused: boolean;
    pause(mode: PauseMode, signal: AbortSignal): Promise<void>;
    resume(): void | Promise<void>;
  };
  generate(request: FastifyRequest, reply: FastifyReply): Promise<object>;
  /** Null: whoever reaches the port may load, since only this machine does. */
  token: (() => string | Promise<string>) | null;
}

type Query = { Querystring: Record<string, unknown> };

/** The routes of vLLM through which trainers bring adapters and look at the server. */
export function addVllmRoutes(app: FastifyInstance, speaker: Speaker): void {
  const guarded = { onRequest: (request: FastifyRequest) => requireMayLoad(request, speaker.token) };

  app.post('/v1/load_lora_adapter', guarded, async ({ body }, reply) => {
    const { name } = await speaker.load(body);
    return say(reply, `Success: LoRA adapter '${name}' added successfully.`);
  });
  // prime-rl and SkyRL load each version under the same name.
  app.post('/load_lora_adapter', guarded, async ({ body }) => {
    await speaker.load(body, { inPlace: true });
    return { status: 'ok' };
  });
  app.post('/skyrl/v1/load_lora_adapter', guarded, async ({ body }) => {
    const { name, id } = await speaker.load(body, { inPlace: true });
    return { status: 'ok', lora_name: name, lora_int_id: id };
  });
  app.post('/v1/unload_lora_adapter', guarded, async ({ body }, reply) => {
    const name = await speaker.unload(body);
    return say(reply, `Success: LoRA adapter '${name}' removed successfully.`);
  });

  app.register(async (bodiless) => {
    ignoreBodies(bodiless);
    bodiless.post<Query>('/pause', async (request, reply) => {
      const mode = readMode(request.query);
      if (mode !== 'keep') await requireMayLoad(request, speaker.token);
      await speaker.pauses.pause(mode, clientGone(reply));
      return { status: 'paused' };
    });
    bodiless.post('/resume', async () => {
      await speaker.pauses.resume();
      return { status: 'resumed' };
    });
    bodiless.post('/reset_prefix_cache', async (_, reply) => {
      await speaker.resetPrefixCache();
      return reply.send();
    });
  });

  app.get('/is_paused', async () => ({ is_paused: speaker.pauses.isPaused }));
  app.get<Query>('/server_info', async ({ query }) => speaker.serverInfo(query));
  app.get('/get_world_size', async () => ({ world_size: 1 }));
  app.get<Query>('/weight_info', async ({ query }) => speaker.weightInfo(query));
  app.get('/liveness', async () => ({ status: 'ok' }));
  app.get('/openapi.json', async () => openApi((method, url) => app.hasRoute({ method, url })));

  app.post('/inference/v1/generate', (request, reply) => speaker.generate(request, reply));
}

/**
 * Before a byte of the body is read. Pages in a browser on this machine come through loopback too; they alone send
 * an Origin.
 */
async function requireMayLoad({ headers }: FastifyRequest, token: Speaker['token']): Promise<void> {
  if (token === null && headers.origin === undefined) return;
  if (token !== null && isBearer(headers.authorization, await token())) return;
  throw new OpenAiError('unauthenticated', 'Expected the token of this server as bearer token');
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
