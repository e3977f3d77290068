import { z } from 'zod';
import type { EngineHttp } from './engine-http.ts';
import {
  type AskedFor,
  type EngineFacts,
  type EngineLoader,
  EngineRefusal,
  type EngineSight,
} from './loader.ts';
import { processStart } from './prometheus-text.ts';

const LOOK_MS = 5_000;
const LOAD_MS = 120_000;

const Models = z.object({ data: z.array(z.object({ id: z.string(), parent: z.string().nullish() })) });
const ServerInfo = z.looseObject({
  served_model_name: z.string().nullish(),
  context_length: z.number().nullish(),
  max_loaded_loras: z.number().nullish(),
  max_loras_per_batch: z.number().nullish(),
  max_lora_rank: z.number().nullish(),
});

/**
 * SGLang, started with `--enable-lora`, `--max-lora-rank` and `--lora-target-modules`. It unloads an adapter once nothing
 * runs under it, and hangs where that is never so: it is asked to only when nobody here has a lease.
 */
export class SglangLoader implements EngineLoader {
  readonly kind = 'sglang';
  readonly #http: EngineHttp;

  constructor(http: EngineHttp) {
    this.#http = http;
  }

  asksFor(name: string, baseName: string): AskedFor {
    return { model: baseName, lora_path: name };
  }

  /** As clients of SGLang name it: by `lora_path`, or as `BASE:NAME`. */
  namedIn(body: Readonly<Record<string, unknown>>, baseName: string): unknown {
    const { lora_path: path, model } = body;
    if (path != null) return path;
    const prefix = `${baseName}:`;
    return typeof model === 'string' && model.startsWith(prefix) ? model.slice(prefix.length) : undefined;
  }

  lacksAdapter(status: number, text: string): boolean {
    return status === 400 && /never been loaded|are not loaded/.test(text);
  }

  async facts(signal: AbortSignal): Promise<EngineFacts> {
    const [{ data }, told] = await Promise.all([this.#models(signal), this.#serverInfo(signal)]);
    return {
      baseName: data.find(({ parent }) => parent == null)?.id ?? told.served_model_name ?? '',
      contextTokens: told.context_length ?? null,
      adaptersMax: told.max_loaded_loras ?? told.max_loras_per_batch ?? null,
      rankMax: told.max_lora_rank ?? null,
      scalesByModule: false,
      fusesProjections: true,
    };
  }

  /** Its metrics do not say when it began where several processes share them: the list of adapters is empty after a start. */
  async look(signal: AbortSignal): Promise<EngineSight> {
    const [{ data }, metrics] = await Promise.all([this.#models(signal), this.#metrics(signal)]);
    return { process: processStart(metrics) ?? 'unknown', adapters: new Set(data.map(({ id }) => id)) };
  }

  async load(name: string, path: string, signal: AbortSignal): Promise<void> {
    const body = { lora_name: name, lora_path: path };
    await this.#change('/load_lora_adapter', body, signal).catch((error: unknown) => {
      // Of the same content: the name says so.
      if (error instanceof EngineRefusal && /already (?:been )?loaded|already exists/i.test(error.message))
        return;
      throw error;
    });
    const { data } = await this.#models(signal);
    if (!data.some(({ id }) => id === name))
      throw new EngineRefusal(501, 'its /v1/models does not list adapters: SGLang 0.5 or later is needed');
  }

  async unload(name: string, signal: AbortSignal): Promise<void> {
    await this.#change('/unload_lora_adapter', { lora_name: name }, signal).catch((error: unknown) => {
      if (error instanceof EngineRefusal && /not (?:found|loaded)|does not exist/i.test(error.message))
        return;
      throw error;
    });
  }

  async probe(name: string, signal: AbortSignal): Promise<void> {
    const body = { lora_path: name, prompt: 'a', max_tokens: 1, temperature: 0 };
    await this.#http.text({ method: 'POST', path: '/v1/completions', body, signal, timeoutMs: LOAD_MS });
  }

  /** It answers a refusal with 200 too. */
  async #change(path: string, body: object, signal: AbortSignal): Promise<void> {
    const reply = await this.#http.json({ method: 'POST', path, body, signal, timeoutMs: LOAD_MS });
    const { success = true, error_message: message } = (reply ?? {}) as Record<string, unknown>;
    if (success === false) throw new EngineRefusal(400, String(message ?? 'no reason given'));
  }

  async #models(signal: AbortSignal): Promise<z.infer<typeof Models>> {
    return Models.parse(
      await this.#http.json({ method: 'GET', path: '/v1/models', signal, timeoutMs: LOOK_MS }),
    );
  }

  /** Told only where it is started with --enable-metrics. */
  async #metrics(signal: AbortSignal): Promise<string> {
    const call = { method: 'GET', path: '/metrics', signal, timeoutMs: LOOK_MS } as const;
    return await this.#http.text(call).catch((error: unknown) => {
      if (error instanceof EngineRefusal) return '';
      throw error;
    });
  }

  /** The second is how it was called first. */
  async #serverInfo(signal: AbortSignal): Promise<z.infer<typeof ServerInfo>> {
    const ask = (path: string) => this.#http.json({ method: 'GET', path, signal, timeoutMs: LOOK_MS });
    const told = await ask('/server_info').catch((error: unknown) => {
      if (error instanceof EngineRefusal && error.status === 404) return ask('/get_server_info');
      throw error;
    });
    return ServerInfo.parse(told);
  }
}
