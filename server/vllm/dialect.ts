import type { FastifyInstance } from 'fastify';
import type { Registry } from '../adapters/registry.ts';
import type { Serving } from '../openai/serving.ts';
import { generate } from './generate.ts';
import { Loads } from './loads.ts';
import type { LoraRoot } from './lora-root.ts';
import { Pauses } from './pauses.ts';
import { addVllmRoutes, type Speaker } from './routes.ts';
import { type EngineFacts, serverInfo } from './server-info.ts';
import { weightInfo } from './weight-info.ts';

export interface Dialect {
  serving: Serving;
  registry: Registry;
  engine: EngineFacts;
  resetPrefixCache: () => void;
  isIdle: () => boolean;
  /** Null: nothing is loaded. */
  root: LoraRoot | null;
  token: Speaker['token'];
}

/** A pod as one vLLM. */
export function speakVllm(app: FastifyInstance, dialect: Dialect): void {
  const { serving, registry, engine, root, token, resetPrefixCache, isIdle } = dialect;
  const loads = new Loads(registry, root);
  addVllmRoutes(app, {
    load: (body, options) => loads.load(body, options),
    unload: (body) => loads.unload(body),
    serverInfo: (query) => serverInfo(serving.model, engine, query),
    weightInfo: (query) => weightInfo(registry, query),
    generate: ({ body }, reply) => generate(serving, body, reply),
    resetPrefixCache,
    pauses: new Pauses(serving.gate, isIdle),
    token,
  });
}
