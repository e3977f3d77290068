import { z } from 'zod';
import type { EngineHttp } from './engine-http.ts';
import type { AskedFor, EngineFacts, EngineLoader, EngineSight } from './loader.ts';
import { EngineRefusal } from './loader.ts';
import { processStart, sampleLabel } from './prometheus-text.ts';

const LOOK_MS = 5_000;
const LOAD_MS = 120_000;
/** The first version that is known to read rank_pattern and alpha_pattern: those of 2025 did not. */
const SCALES_BY_MODULE = [0, 32] as const;

const Models = z.object({
  data: z.array(
    z.object({
      id: z.string(),
      parent: z.string().nullish(),
      max_model_len: z.number().nullish(),
    }),
  ),
});
const ServerInfo = z.object({
  vllm_config: z.object({
    lora_config: z.object({
      max_loras: z.number(),
      max_cpu_loras: z.number().nullish(),
      max_lora_rank: z.number(),
    }),
  }),
});

/**
 * vLLM, started with `--enable-lora` and VLLM_ALLOW_RUNTIME_LORA_UPDATING. It holds `max_cpu_loras` adapters, of which
 * `max_loras` compute at a time: a request of another waits in its own queue.
 */
export class VllmLoader implements EngineLoader {
  readonly kind = 'vllm';
  readonly #http: EngineHttp;

  constructor(http: EngineHttp) {
    this.#http = http;
  }

  asksFor(name: string): AskedFor {
    return { model: name };
  }

  namedIn(): undefined {}

  lacksAdapter(status: number): boolean {
    return status === 404;
  }

  async facts(signal: AbortSignal): Promise<EngineFacts> {
    const { data } = await this.#models(signal);
    const base = data.find(({ parent }) => parent == null);
    const lora = await this.#loraConfig(signal);
    return {
      baseName: base?.id ?? '',
      contextTokens: base?.max_model_len ?? null,
      adaptersMax: lora?.max_cpu_loras ?? lora?.max_loras ?? (await this.#scrapedMax(signal)),
      rankMax: lora?.max_lora_rank ?? null,
      scalesByModule: await this.#isAtLeast(SCALES_BY_MODULE, signal),
      fusesProjections: false,
    };
  }

  async look(signal: AbortSignal): Promise<EngineSight> {
    const [{ data }, metrics] = await Promise.all([this.#models(signal), this.#metrics(signal)]);
    return { process: processStart(metrics) ?? 'unknown', adapters: new Set(data.map(({ id }) => id)) };
  }

  async load(name: string, path: string, signal: AbortSignal): Promise<void> {
    const body = { lora_name: name, lora_path: path };
    const call = { method: 'POST', path: '/v1/load_lora_adapter', body, signal, timeoutMs: LOAD_MS } as const;
    await this.#http.text(call).catch((error: unknown) => {
      // Of the same content: the name says so.
      if (error instanceof EngineRefusal && /already been loaded/.test(error.message)) return;
      throw error;
    });
  }

  async unload(name: string, signal: AbortSignal): Promise<void> {
    const body = { lora_name: name };
    const call = {
      method: 'POST',
      path: '/v1/unload_lora_adapter',
      body,
      signal,
      timeoutMs: LOAD_MS,
    } as const;
    await this.#http.text(call).catch((error: unknown) => {
      if (error instanceof EngineRefusal && (error.status === 404 || /not found/i.test(error.message)))
        return;
      throw error;
    });
  }

  async probe(name: string, signal: AbortSignal): Promise<void> {
    const body = { model: name, prompt: 'a', max_tokens: 1, temperature: 0 };
    await this.#http.text({ method: 'POST', path: '/v1/completions', body, signal, timeoutMs: LOAD_MS });
  }

  async #models(signal: AbortSignal): Promise<z.infer<typeof Models>> {
    return Models.parse(
      await this.#http.json({ method: 'GET', path: '/v1/models', signal, timeoutMs: LOOK_MS }),
    );
  }

  #metrics(signal: AbortSignal): Promise<string> {
    return this.#http.text({ method: 'GET', path: '/metrics', signal, timeoutMs: LOOK_MS });
  }

  /** Of a version that is not of a release nothing is known. */
  async #isAtLeast([major, minor]: readonly [number, number], signal: AbortSignal): Promise<boolean> {
    const told = await this.#http.json({ method: 'GET', path: '/version', signal, timeoutMs: LOOK_MS });
    const { version = '' } = (told ?? {}) as { version?: string };
    const [, ours, theirs] = /^(\d+)\.(\d+)\.\d/.exec(version) ?? [];
    return Number(ours) > major || (Number(ours) === major && Number(theirs) >= minor);
  }

  /** Told only in development mode (VLLM_SERVER_DEV_MODE); null otherwise. */
  async #loraConfig(signal: AbortSignal) {
    const path = '/server_info?config_format=json';
    const told = await this.#http
      .json({ method: 'GET', path, signal, timeoutMs: LOOK_MS })
      .catch((error: unknown) => {
        if (error instanceof EngineRefusal) return null;
        throw error;
      });
    const parsed = ServerInfo.safeParse(told);
    return parsed.success ? parsed.data.vllm_config.lora_config : null;
  }

  /** Once it has had a request. */
  async #scrapedMax(signal: AbortSignal): Promise<number | null> {
    const label = sampleLabel(await this.#metrics(signal), 'vllm:lora_requests_info', 'max_lora');
    return label === null || !/^[1-9]\d*$/.test(label) ? null : Number(label);
  }
}
