// The whole surface of the native engine. C++ never parses JSON, safetensors headers or network bytes: it gets
// these validated descriptors and spans, and checks every bound again.

export type Dtype = 'F32' | 'F16' | 'BF16';

/** A tensor inside `ModelDescriptor.files[file]`: `bytes` bytes from `offset`, row-major. */
export interface FileTensor {
  file: number;
  offset: number;
  bytes: number;
  dtype: Dtype;
  shape: number[];
}

export interface ModelConfig {
  layers: number;
  hiddenSize: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  ffnSize: number;
  vocabSize: number;
  /** Longest sequence in tokens, prompt and answer together. */
  contextTokens: number;
  rmsEps: number;
  /** Inverse frequencies of the rotary embedding, [headDim / 2], scaling already applied. */
  ropeInvFreq: number[];
  /** Multiplies cos and sin (1 except for YaRN-like scalings). */
  ropeAttentionScale: number;
}

export interface LayerTensors {
  inputNorm: FileTensor; // [hidden]
  postAttentionNorm: FileTensor; // [hidden]
  qProj: FileTensor; // [heads * headDim, hidden]
  kProj: FileTensor; // [kvHeads * headDim, hidden]
  vProj: FileTensor; // [kvHeads * headDim, hidden]
  oProj: FileTensor; // [hidden, heads * headDim]
  gateProj: FileTensor; // [ffn, hidden]
  upProj: FileTensor; // [ffn, hidden]
  downProj: FileTensor; // [hidden, ffn]
  qBias: FileTensor | null;
  kBias: FileTensor | null;
  vBias: FileTensor | null;
  qNorm: FileTensor | null; // [headDim]
  kNorm: FileTensor | null; // [headDim]
}

export interface ModelDescriptor {
  config: ModelConfig;
  /** Absolute paths; mapped read-only. */
  files: string[];
  embedTokens: FileTensor; // [vocab, hidden]
  norm: FileTensor; // [hidden]
  /** The same tensor as `embedTokens` where embeddings are tied. */
  lmHead: FileTensor; // [vocab, hidden]
  layers: LayerTensors[];
}

export interface EngineOptions {
  model: ModelDescriptor;
  /** `auto`, or one that `backends()` lists. */
  backend: string;
  /**
   * What products read and what is stored; sums and the residual are float32. `auto`: bfloat16 where the model's
   * matrices are stored so, else float32. The reference backend is float32 always.
   */
  dtype: 'auto' | 'float32' | 'bfloat16';
  /** Revisions that can be resident at once. */
  slots: number;
  maxRank: number;
  /** Bytes of the KV cache, rounded down to whole blocks of 16 tokens. */
  kvBytes: number;
  /** Sequences that run at once. */
  maxBatch: number;
  /**
   * Tokens of one engine step, at most; longer prompts are prefilled in chunks, which get smaller while other
   * sequences wait for their next token, so that a step takes about 250 ms.
   */
  maxBatchTokens: number;
  /** Sequences that may wait; one more is refused with `queue_full`. */
  maxWaiting: number;
  threads: number;
  /** Whether requests share the keys and values of the same beginning under the same revision, scale and salt. */
  prefixCache: boolean;
  /** Says on stderr how far the weights are loaded: a line of JSON a second, as `createEngine` blocks meanwhile. */
  progress?: boolean;
}

export interface EngineInfo {
  /** What computes: `reference`, or the instruction set or device, as `avx2`. */
  backend: string;
  /** Of keys, values and adapters' pages, and of what products read where the processor has instructions for it. */
  dtype: 'float32' | 'bfloat16';
  /** Bytes taken, or reserved to be taken as they are written. */
  memoryBytes: { weights: number; kv: number; pages: number; activations: number; graphs: number };
  slots: number;
  /** Pages of 16 ranks of one module group of one layer. */
  pages: number;
  kvBlocks: number;
  blockTokens: number;
}

/** Those of a layer, then those that are in none. */
export const LORA_MODULES = [
  'q_proj',
  'k_proj',
  'v_proj',
  'o_proj',
  'gate_proj',
  'up_proj',
  'down_proj',
  'embed_tokens',
  'lm_head',
] as const;
export type LoraModuleName = (typeof LORA_MODULES)[number];

/**
 * One adapted module. `a` is [rank, in], `b` [out, rank], both row-major at their offsets in the body: PEFT's
 * lora_embedding_A is [rank, vocab], its lora_embedding_B [hidden, rank].
 */
export interface LoraModule {
  /** 0 for embed_tokens and lm_head. */
  layer: number;
  module: LoraModuleName;
  rank: number;
  /** lora_alpha / r, or lora_alpha / sqrt(r) for rsLoRA. */
  scale: number;
  a: { offset: number; dtype: Dtype };
  b: { offset: number; dtype: Dtype };
}

export interface StageReport {
  /** Null where the revision was inspected and is good, but no slot was free for it: it is not resident. */
  slot: number | null;
  pages: number;
  /** True where every B is zero: the adapter changes nothing. */
  zeroEffect: boolean;
  /** Revisions without leases whose slots were taken for this one. */
  evicted: string[];
  packMs: number;
  /** Tensors with values that the pages' type cannot hold exactly. */
  rounded: number;
}

export type Target =
  | { kind: 'base' }
  /** Whatever revision is current when the request is submitted. */
  | { kind: 'adapter'; name: string }
  | { kind: 'revision'; digest: string };

/**
 * `raw`: of the logits as they are. `processed`: of what the token was drawn from, which is after penalties, bias,
 * temperature, top_k, top_p and min_p, and minus infinity for what these cut off. Greedy tokens come from no
 * distribution: theirs is after penalties and bias only.
 */
export type LogprobsMode = 'raw' | 'processed';

/**
 * What becomes of a request whose adapter gets another revision: `pin` ends on the one it began with, `latest` goes on
 * with the new one from the next step on, once that is resident, over the keys and values that are there (a preempted
 * one computes them anew); `activation` leaves it to `activate`.
 */
export type Policy = 'activation' | 'pin' | 'latest';

export interface GenerateRequest {
  /** Unique among live requests; chosen by the caller. */
  id: number;
  /** At least one token id, each below vocabSize. */
  prompt: number[];
  target: Target;
  /** 0 asks for prompt log-probabilities only. */
  maxTokens: number;
  /** Token ids that end the generation; the ending token comes with `finished`. */
  stopTokens: number[];
  /** 0 = greedy. */
  temperature: number;
  topP: number;
  /** 0 = no limit. */
  topK: number;
  minP: number;
  seed: number;
  presencePenalty: number;
  frequencyPenalty: number;
  repetitionPenalty: number;
  logitBias: [token: number, bias: number][];
  /** Alternatives to report per generated token; -1 = report no log-probabilities at all. */
  logprobs: number;
  /**
   * Of these, and where `maxTokens` is 0 of the prompt's, as if tokens from `promptLogprobsFrom` on had been drawn; a
   * prompt's are raw otherwise.
   */
  logprobsMode: LogprobsMode;
  /** Alternatives to report per prompt token; -1 = none. */
  promptLogprobs: number;
  /** The first prompt token to report: 1 or more, as nothing says how likely the very first one is. */
  promptLogprobsFrom: number;
  policy: Policy;
  /** Requests share keys and values with those of the same salt only. At most 4,096 bytes; may be empty. */
  cacheSalt: string;
  /** Multiplies the adapter's own scale; 1 = as trained. */
  loraScale: number;
  /** Requests of one group take turns with those of others for seats: the choices of one response are a group. */
  group: number;
}

export interface TokenLogprobs {
  logprob: number;
  /** Most likely first. */
  top: [token: number, logprob: number][];
}

export type EngineEvent =
  /** The request holds its lease; `revision` is null for the base. Comes first. */
  | { id: number; type: 'accepted'; revision: string | null; step: number }
  /** The first step is done: of the prompt so many tokens had their keys and values there already. */
  | { id: number; type: 'started'; cachedTokens: number }
  /** The tokens that follow are of this revision. */
  | { id: number; type: 'moved'; revision: string }
  /** Log-probabilities of prompt tokens from `promptLogprobsFrom` on; comes before the first token. */
  | { id: number; type: 'prompt'; logprobs: TokenLogprobs[] }
  | { id: number; type: 'token'; token: number; logprobs: TokenLogprobs | null }
  /** `logprobs` are the stop token's, where they were asked for. */
  | {
      id: number;
      type: 'finished';
      reason: 'stop' | 'length' | 'cancelled';
      stopToken: number | null;
      logprobs: TokenLogprobs | null;
    }
  /** With id 0: the engine itself failed, and serves nobody any more. */
  | { id: number; type: 'failed'; code: FailureCode; message: string }
  /** The last lease of a revision that was asked to go is gone; its slot is free. */
  | { id: 0; type: 'freed'; revision: string };

export interface EngineSnapshot {
  /** Engine steps done since start. */
  step: number;
  /** Counts activations and deactivations. */
  epoch: number;
  running: number;
  waiting: number;
  kvBlocksUsed: number;
  pagesUsed: number;
  slots: {
    slot: number;
    revision: string;
    state: 'staging' | 'ready' | 'retired';
    leases: number;
    pages: number;
  }[];
  /** Names of adapters with running sequences, and with waiting ones. */
  runningAdapters: string[];
  waitingAdapters: string[];
  promptTokens: number;
  generatedTokens: number;
  preemptions: number;
  /** Prompt tokens of admitted requests, and how many of them had their keys and values there already. */
  prefixTokensQueried: number;
  prefixTokensHit: number;
  /** Time of all steps so far, by what it went into. */
  phasesMs: Record<string, number>;
}

/**
 * Errors thrown or rejected by the engine are `Error`s with one of these as `code`; `invalid_argument` comes with the
 * field's name as `field`, `non_finite` with the index into `modules` and which factor as `module` and `factor`.
 */
export const ENGINE_ERRORS = [
  'invalid_argument',
  'unsupported_backend',
  'no_capacity',
  'non_finite',
  'revision_not_found',
  'adapter_not_found',
  'not_resident',
  'queue_full',
  'engine_failed',
  'closing',
] as const;
export type EngineErrorCode = (typeof ENGINE_ERRORS)[number];

/** `not_resident`: the revision that the target means is in no slot. `non_finite`: the logits are; no other is hurt. */
export type FailureCode = Extract<
  EngineErrorCode,
  'adapter_not_found' | 'not_resident' | 'queue_full' | 'non_finite' | 'engine_failed' | 'closing'
>;

export interface Engine {
  readonly info: EngineInfo;
  /**
   * Packs a revision into free pages on a worker thread; serves nobody yet. `body` must not change until the
   * promise settles. Evicts the least recently used revision without leases if no slot or page is free; where there
   * is none, the report's slot is null. A revision that is resident already resolves at once; one that was released
   * but still has leases is kept after all, and no `freed` follows.
   */
  stage(revision: string, body: Uint8Array, modules: LoraModule[]): Promise<StageReport>;
  /**
   * Points `adapter` at a revision, for each request that is submitted from now on; those fail with `not_resident`
   * while it is in no slot. Running requests go on with it where `migrates`, if their policy leaves that to it.
   * `step` is the first step that serves it: the next one, or the one after that which runs.
   */
  activate(adapter: string, revision: string, migrates: boolean): Promise<{ step: number; epoch: number }>;
  /** Takes the name away; running sequences keep their leases. */
  deactivate(adapter: string): Promise<{ step: number; epoch: number }>;
  /** Frees the slot now, or when the last lease goes (`freed` event). Unknown revisions resolve to 0 leases. */
  release(revision: string): Promise<{ leases: number }>;
  submit(request: GenerateRequest): void;
  cancel(id: number): void;
  /** Later requests find nothing of what was computed so far. */
  resetPrefixCache(): void;
  snapshot(): EngineSnapshot;
  /** Ends running sequences with `closing`, joins all threads. */
  close(): Promise<void>;
}

export interface NativeAddon {
  /** `onEvents` gets the events of one or more engine steps, in order. What it throws is an `uncaughtException`. */
  createEngine(options: EngineOptions, onEvents: (events: EngineEvent[]) => void): Engine;
  /**
   * Memory of `bytes` bytes, at least one, with anything in it. Once it is collected its pages serve the next one, which
   * saves making new ones. RangeError where there is no memory.
   */
  allocateBody(bytes: number): ArrayBuffer;
  /** What `EngineOptions.backend` may name; `auto` is the first that is available. */
  backends(): BackendInfo[];
  /** ENGINE_ERRORS and LORA_MODULES as the C++ side has them; what LORIKEET_ISA may name on this processor. */
  names(): AddonNames;
}

export interface AddonNames {
  errors: string[];
  modules: string[];
  instructionSets: string[];
}

export interface BackendInfo {
  name: string;
  available: boolean;
  /** Why not; empty where it is. */
  reason: string;
}
