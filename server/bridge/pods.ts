import { type Dispatcher, request } from 'undici';
import { z } from 'zod';
import { Digest, Step } from '../contract/adapter-api.ts';
import { exchange, jsonOrNull, readText } from '../transfer/call.ts';
import { PodUnreachable } from '../transfer/unreachable.ts';

/** A pod that gave no answer so often in a row is gone, and what waits for it waits in vain. */
const LOST_AFTER = 5;
const ANSWER_MS = 2_000;

const Card = z.looseObject({
  id: z.string(),
  parent: z.string().nullish(),
  revision: Digest.optional(),
  step: Step.optional(),
});
/** The base first, or in its place an adapter of its name. */
const Models = z.object({ data: z.tuple([Card], Card) });
export type Card = z.infer<typeof Card>;

const Info = z.object({
  vllm_config: z.object({
    model_config: z.object({
      served_model_name: z.string(),
      max_model_len: z.number(),
      dtype: z.string(),
    }),
    lora_config: z.object({ max_lora_rank: z.number(), max_loras: z.number() }),
  }),
});
export type Info = z.infer<typeof Info>['vllm_config'];

/** One pod's serving API. */
export class Pod {
  readonly url: string;
  inFlight = 0;
  isReady = false;
  /** Aborts once the pod is lost. */
  #life = new AbortController();
  readonly #dispatcher: Dispatcher;
  #silences = 0;
  #looking: Promise<void> | null = null;

  constructor(url: string, dispatcher: Dispatcher) {
    this.url = url;
    this.#dispatcher = dispatcher;
  }

  get life(): AbortSignal {
    return this.#life.signal;
  }

  /** Asks whether it is ready; whoever asks meanwhile gets the same answer. */
  look(): Promise<void> {
    this.#looking ??= this.#look().finally(() => {
      this.#looking = null;
    });
    return this.#looking;
  }

  /** It gave no answer to somebody: nobody else is sent there before it says that it is ready. */
  suspect(): void {
    this.isReady = false;
    void this.look();
  }

  async #look(): Promise<void> {
    try {
      const signal = AbortSignal.timeout(ANSWER_MS);
      const { statusCode, body } = await request(`${this.url}/ready`, {
        dispatcher: this.#dispatcher,
        signal,
      });
      await body.dump();
      this.isReady = statusCode === 200;
      this.#silences = 0;
    } catch {
      this.isReady = false;
      this.#silences += 1;
      if (this.#silences !== LOST_AFTER) return;
      this.#life.abort(new PodUnreachable(`${this.url} gave no answer ${LOST_AFTER} times in a row`));
      this.#life = new AbortController();
    }
  }

  async models(): Promise<[Card, ...Card[]]> {
    return (await this.#get('/v1/models', Models)).data;
  }

  async info(): Promise<Info> {
    return (await this.#get('/server_info?config_format=json', Info)).vllm_config;
  }

  async weightInfo(model: string): Promise<object> {
    const path = `/weight_info?model=${encodeURIComponent(model)}`;
    return await this.#get(path, z.object({ weight_version: z.string() }));
  }

  async resetPrefixCache(): Promise<void> {
    const { body } = await this.#exchange('POST', '/reset_prefix_cache', AbortSignal.timeout(ANSWER_MS));
    await body.dump();
  }

  async #get<T>(path: string, schema: z.ZodType<T>): Promise<T> {
    const life = AbortSignal.timeout(ANSWER_MS);
    const response = await this.#exchange('GET', path, life);
    const parsed = schema.safeParse(jsonOrNull(await readText(response.body, life)));
    if (parsed.success) return parsed.data;
    throw new PodUnreachable(`${this.url}${path} answers otherwise than a pod with --vllm-api`);
  }

  async #exchange(
    method: 'GET' | 'POST',
    path: string,
    signal: AbortSignal,
  ): Promise<Dispatcher.ResponseData> {
    const url = `${this.url}${path}`;
    return await exchange({
      method,
      url,
      headers: {},
      dispatcher: this.#dispatcher,
      signal,
      silenceMs: ANSWER_MS,
    });
  }
}

/** What a card of /v1/models must say for its adapter to be current in that pod. */
export function isCurrent(cards: Card[], served: string, revision: string): boolean {
  return cards.some((card) => card.id === served && card.revision === revision);
}
