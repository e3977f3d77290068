import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { createEngine } from '../../native/index.ts';
import {
  type Engine,
  type EngineEvent,
  type EngineOptions,
  type GenerateRequest,
  LORA_MODULES,
  type LoraModule,
  type StageReport,
  type Target,
  type TokenLogprobs,
} from '../../native/types.ts';
import { parseAdapterConfig } from '../../server/contract/format/adapter-config.ts';
import { bindAdapter } from '../../server/contract/format/bind.ts';
import { headerLength, parseHeader } from '../../server/contract/format/safetensors.ts';
import { isInLayers } from '../../server/contract/format/tensor-names.ts';
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
  /** Where the tokens' revision changes. */
  moves: { from: number; revision: string }[];
  cachedTokens: number;
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

/** How far transformers' own bf16 run is from its float32 run, at most. */
export function bf16Distance(model: string, adapter: string): number {
  const golden = JSON.parse(readFileSync(resolve(FIXTURES, model, 'golden/golden.json'), 'utf8'));
  return golden.bf16_distance[adapter].max;
}

/** Golden files hold empty tensors too, which the contract's parser refuses. */
export function goldenTensors(model: string): Map<string, Float32Array> {
  const bytes = readFileSync(resolve(FIXTURES, model, 'golden/golden.safetensors'));
  const dataOffset = 8 + Number(bytes.readBigUInt64LE());
  const header: Record<string, { data_offsets: [number, number] }> = JSON.parse(
    bytes.subarray(8, dataOffset).toString(),
  );
  const floats = (begin: number, end: number) =>
    new Float32Array(
      bytes.buffer.slice(bytes.byteOffset + dataOffset + begin, bytes.byteOffset + dataOffset + end),
    );
  return new Map(Object.entries(header).map(([name, { data_offsets }]) => [name, floats(...data_offsets)]));
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

/**
 * Small random factors on every projection of every layer; float32 bytes without a header. The embedding and the head
 * are left out: tests that count pages count those of layers, which are alike.
 */
export function randomAdapter(model: LoadedModel, { rank, seed }: { rank: number; seed: number }): Adapter {
  const modules: LoraModule[] = [];
  let bytes = 0;
  const place = (values: number) => {
    const offset = bytes;
    bytes += 4 * values;
    return { offset, dtype: 'F32' as const };
  };
  for (let layer = 0; layer < model.geometry.layers; layer++) {
    for (const module of LORA_MODULES) {
      const side = model.geometry.modules[module];
      if (!side || !isInLayers(module)) continue;
      modules.push({ layer, module, rank, scale: 1, a: place(rank * side.in), b: place(rank * side.out) });
    }
  }
  const random = randomNumbers(seed);
  const body = new Float32Array(bytes / 4).map(() => 0.1 * (random() - 0.5));
  return { body: new Uint8Array(body.buffer), modules };
}

/** A small seeded generator of numbers in [0, 1) (mulberry32). */
export function randomNumbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
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
    this.engine = createEngine({ ...DEFAULTS, model: model.descriptor, ...options }, (events) => {
      for (const event of events) {
        if (event.type === 'freed') this.freed.push(event.revision);
        this.#live.get(event.id)?.(event);
        this.onEvent(event);
      }
    });
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
    await this.engine.activate(adapter, revision, false);
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
      moves: [],
      cachedTokens: 0,
    };
    const result = new Promise<Generated>((settle, fail) => {
      this.#live.set(id, (event) => {
        if (event.type === 'accepted') {
          generated.revision = event.revision;
          generated.step = event.step;
        } else if (event.type === 'started') {
          generated.cachedTokens = event.cachedTokens;
        } else if (event.type === 'moved') {
          generated.moves.push({ from: generated.tokens.length, revision: event.revision });
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

/** Without a prefix cache: what a test asks twice is to be computed twice. */
export const DEFAULTS: Omit<EngineOptions, 'model'> = {
  backend: 'cpu',
  dtype: 'float32',
  slots: 8,
  maxRank: 64,
  kvBytes: 32 << 20,
  maxBatch: 64,
  maxBatchTokens: 256,
  maxWaiting: 512,
  threads: 2,
  prefixCache: false,
};

export const GREEDY: Omit<GenerateRequest, 'id' | 'prompt' | 'stopTokens'> = {
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
  logprobsMode: 'raw',
  promptLogprobs: -1,
  promptLogprobsFrom: 1,
  policy: 'activation',
  cacheSalt: '',
  loraScale: 1,
  group: 0,
};

export function logSoftmax(logits: Float32Array): Float64Array {
  const highest = logits.reduce((max, logit) => Math.max(max, logit), Number.NEGATIVE_INFINITY);
  const sum = logits.reduce((total, logit) => total + Math.exp(logit - highest), 0);
  return Float64Array.from(logits, (logit) => logit - highest - Math.log(sum));
}
