import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { createEngine } from '../../native/index.ts';
import type {
  Engine,
  EngineEvent,
  EngineOptions,
  GenerateRequest,
  LoraModule,
  StageReport,
  Target,
  TokenLogprobs,
} from '../../native/types.ts';
import { parseAdapterConfig } from '../../server/contract/adapter-config.ts';
import { bindAdapter } from '../../server/contract/bind.ts';
import { headerLength, parseHeader } from '../../server/contract/safetensors.ts';
import { type LoadedModel, loadModel } from '../../server/model/load.ts';

const FIXTURES = resolve(import.meta.dirname, '../fixtures');
export const BASE: Target = { kind: 'base' };

export interface GoldenCase {
  adapter: string;
  ids: number[];
  greedy: number[];
  margins: number[];
  key: string;
}

/** Everything that a request's events said. */
export interface Generated {
  revision: string | null;
  step: number;
  tokens: number[];
  logprobs: TokenLogprobs[];
  promptLogprobs: TokenLogprobs[] | null;
  reason: string;
  stopToken: number | null;
}

export class RequestFailed extends Error {
  readonly code: string;
  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

export function fixtureModel(name: string): Promise<LoadedModel> {
  return loadModel(resolve(FIXTURES, name));
}

export function goldenCases(model: string): GoldenCase[] {
  const golden = JSON.parse(readFileSync(resolve(FIXTURES, model, 'golden/golden.json'), 'utf8'));
  return golden.cases;
}

export function goldenTensors(model: string): Map<string, Float32Array> {
  const bytes = readFileSync(resolve(FIXTURES, model, 'golden/golden.safetensors'));
  const header = parseHeader(bytes.subarray(0, headerLength(bytes.subarray(0, 8))));
  return new Map(
    header.tensors.map((t) => [
      t.name,
      new Float32Array(bytes.buffer.slice(bytes.byteOffset + t.begin, bytes.byteOffset + t.end)),
    ]),
  );
}

export interface Adapter {
  body: Uint8Array;
  modules: LoraModule[];
}

export function fixtureAdapter(model: LoadedModel, modelName: string, name: string): Adapter {
  const folder = resolve(FIXTURES, modelName, 'adapters', name);
  const body = readFileSync(resolve(folder, 'adapter_model.safetensors'));
  const config = parseAdapterConfig(readFileSync(resolve(folder, 'adapter_config.json')));
  const header = parseHeader(body.subarray(0, headerLength(body.subarray(0, 8))));
  return { body, modules: bindAdapter(config, header, { geometry: model.geometry, maxRank: 64 }).modules };
}

/** An engine over a fixture model whose requests can be awaited one by one. */
export class TestEngine implements AsyncDisposable {
  readonly engine: Engine;
  readonly model: LoadedModel;
  readonly modelName: string;
  readonly freed: string[] = [];
  /** Called with every event as it comes. */
  onEvent: (event: EngineEvent) => void = () => {};
  #nextId = 0;
  readonly #live = new Map<number, (event: EngineEvent) => void>();

  private constructor(model: LoadedModel, modelName: string, options: Partial<EngineOptions>) {
    this.model = model;
    this.modelName = modelName;
    this.engine = createEngine(
      {
        model: model.descriptor,
        backend: 'cpu',
        slots: 8,
        maxRank: 64,
        kvBytes: 32 << 20,
        maxBatch: 64,
        maxBatchTokens: 256,
        maxWaiting: 512,
        threads: 2,
        ...options,
      },
      (events) => {
        for (const event of events) {
          if (event.type === 'freed') this.freed.push(event.revision);
          this.#live.get(event.id)?.(event);
          this.onEvent(event);
        }
      },
    );
  }

  static async open(modelName: string, options: Partial<EngineOptions> = {}): Promise<TestEngine> {
    return new TestEngine(await fixtureModel(modelName), modelName, options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.engine.close();
  }

  /** Stages a fixture adapter under its own name as digest, and makes it current. */
  async serve(name: string, revision = name, adapter = name): Promise<StageReport> {
    const { body, modules } = fixtureAdapter(this.model, this.modelName, name);
    const report = await this.engine.stage(revision, body, modules);
    await this.engine.activate(adapter, revision);
    return report;
  }

  /** Starts a request; `id` can be cancelled, `result` rejects with RequestFailed. */
  start(request: Partial<GenerateRequest> & { prompt: number[] }): {
    id: number;
    result: Promise<Generated>;
  } {
    const id = ++this.#nextId;
    const generated: Generated = {
      revision: null,
      step: 0,
      tokens: [],
      logprobs: [],
      promptLogprobs: null,
      reason: '',
      stopToken: null,
    };
    const result = new Promise<Generated>((settle, fail) => {
      this.#live.set(id, (event) => {
        if (event.type === 'accepted') {
          generated.revision = event.revision;
          generated.step = event.step;
        } else if (event.type === 'prompt') {
          generated.promptLogprobs = event.logprobs;
        } else if (event.type === 'token') {
          generated.tokens.push(event.token);
          if (event.logprobs) generated.logprobs.push(event.logprobs);
        } else if (event.type === 'finished') {
          this.#live.delete(id);
          settle({ ...generated, reason: event.reason, stopToken: event.stopToken });
        } else if (event.type === 'failed') {
          this.#live.delete(id);
          fail(new RequestFailed(event.code, event.message));
        }
      });
    });
    this.engine.submit({ ...GREEDY, stopTokens: this.model.eosTokenIds, ...request, id });
    return { id, result };
  }

  generate(request: Partial<GenerateRequest> & { prompt: number[] }): Promise<Generated> {
    return this.start(request).result;
  }
}

const GREEDY: Omit<GenerateRequest, 'id' | 'prompt' | 'stopTokens'> = {
  target: BASE,
  maxTokens: 24,
  temperature: 0,
  topP: 1,
  topK: 0,
  minP: 0,
  seed: 0,
  presencePenalty: 0,
  frequencyPenalty: 0,
  repetitionPenalty: 1,
  logitBias: [],
  logprobs: -1,
  promptLogprobs: -1,
  loraScale: 1,
};
