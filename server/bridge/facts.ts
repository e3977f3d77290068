import { modelNotFound } from '../openai/errors.ts';
import { PodUnreachable } from '../transfer/unreachable.ts';
import { serverInfo } from '../vllm/server-info.ts';
import { type Fleet, notReady } from './fleet.ts';
import type { Names, Version } from './names.ts';
import type { Card, Pod } from './pods.ts';

export interface FactsOptions {
  fleet: Pick<Fleet, 'ready'>;
  names: Names;
  keep: number;
}

/** What a client may ask of the fleet as if it were one server. */
export class Facts {
  readonly #options: FactsOptions;
  #baseModel: string | null = null;

  constructor(options: FactsOptions) {
    this.#options = options;
  }

  /** Pods of one fleet have one, for good. */
  async baseModel(): Promise<string> {
    if (this.#baseModel !== null) return this.#baseModel;
    const [{ id, parent }] = await this.#ask((pod) => pod.models());
    this.#baseModel = parent ?? id;
    return this.#baseModel;
  }

  /** Of adapters no more than this keeps the names of: a trainer that needs more learns it at its start. */
  async serverInfo(query: Record<string, unknown>): Promise<object> {
    const { model_config: model, lora_config: lora } = await this.#ask((pod) => pod.info());
    const dtype = model.dtype.replace(/^torch\./, '');
    const slots = Math.min(lora.max_loras, this.#options.keep);
    const engine = { dtype, slots, maxRank: lora.max_lora_rank };
    return serverInfo({ name: model.served_model_name, maxTokens: model.max_model_len }, engine, query);
  }

  async weightInfo({ model }: Record<string, unknown>): Promise<object> {
    const base = await this.baseModel();
    const name = model === undefined ? base : String(model);
    const version = this.#options.names.find(name);
    if (version !== undefined) return { weight_version: version.revision };
    if (name !== base) throw modelNotFound(name);
    return await this.#ask((pod) => pod.weightInfo(base));
  }

  /** The base first, unless an adapter has its name; then the trainer's names. */
  async models(): Promise<{ object: 'list'; data: object[] }> {
    const base = await this.#baseCard();
    const cards = this.#options.names.all().map((version) => cardOf(version, base));
    const isShadowed = cards.some(({ id }) => id === base.id);
    return { object: 'list', data: isShadowed ? cards : [base, ...cards] };
  }

  async model(id: string): Promise<object> {
    const base = await this.#baseCard();
    const version = this.#options.names.find(id);
    if (version !== undefined) return cardOf(version, base);
    if (id !== base.id) throw modelNotFound(id);
    return base;
  }

  async #baseCard(): Promise<Card> {
    const id = await this.baseModel();
    const [card] = await this.#ask((pod) => pod.models());
    const { revision: _revision, step: _step, digest: _digest, ...rest } = card;
    return { ...rest, id, root: id, parent: null };
  }

  /** The first pod that answers. */
  async #ask<T>(question: (pod: Pod) => Promise<T>): Promise<T> {
    let failure: Error = notReady();
    for (const pod of this.#options.fleet.ready()) {
      try {
        return await question(pod);
      } catch (error) {
        if (!(error instanceof PodUnreachable)) throw error;
        pod.suspect();
        failure = notReady(error.message);
      }
    }
    throw failure;
  }
}

function cardOf({ name, revision, step, loadedAt }: Version, base: Card) {
  const lora = { parent: base.id, revision, digest: revision, step };
  return { ...base, id: name, root: name, created: loadedAt, ...lora };
}
