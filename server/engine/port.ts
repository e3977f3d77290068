// What the server asks of an engine, in the server's words. Only engine/ and app.ts know which engine it is.

import type { BoundAdapter } from '../contract/format/bind.ts';

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
 * with the new one between two steps, over the keys and values that are there; `activation` leaves it to `activate`.
 */
export type Policy = 'activation' | 'pin' | 'latest';

export interface GenerateRequest {
  /** At least one token id. */
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
  /** The first prompt token to report; at least 1. */
  promptLogprobsFrom: number;
  policy: Policy;
  /** Requests share keys and values with those of the same salt only; may be empty. */
  cacheSalt: string;
  /** Requests of one group take turns with those of others for seats: the choices of one response are a group. */
  group: number;
  /** Multiplies the adapter's own scale; 1 = as trained. */
  loraScale: number;
}

export interface TokenLogprobs {
  logprob: number;
  /** Most likely first. */
  top: [token: number, logprob: number][];
}

/**
 * `not_resident`: the revision that the target means is in no slot. `non_finite`: the logits are. `engine_away`: it does
 * not answer, or is being given its adapters anew.
 */
export type FailureCode =
  | 'adapter_not_found'
  | 'not_resident'
  | 'engine_away'
  | 'queue_full'
  | 'non_finite'
  | 'engine_failed'
  | 'closing';

/** The trainer's step of a revision that the pod holds. */
export type StepOf = (digest: string) => number | null;

/** Events of one request, in order: accepted or failed first, finished or failed last. */
export type RequestEvent =
  /** The request holds its lease; `revision` is null for the base. */
  | { type: 'accepted'; revision: string | null }
  /** The first step is done: of the prompt so many tokens had their keys and values there already. */
  | { type: 'started'; cachedTokens: number }
  /** The tokens that follow are of this revision; `step` is what it had then, as it may be gone when this is read. */
  | { type: 'moved'; revision: string; step: number | null }
  /** Log-probabilities of prompt tokens from `promptLogprobsFrom` on; comes before the first token. */
  | { type: 'prompt'; logprobs: TokenLogprobs[] }
  | { type: 'token'; token: number; logprobs: TokenLogprobs | null }
  /** `logprobs` are the stop token's, where they were asked for. */
  | {
      type: 'finished';
      reason: 'stop' | 'length' | 'cancelled';
      stopToken: number | null;
      logprobs: TokenLogprobs | null;
    }
  | { type: 'failed'; code: FailureCode; message: string };

/** One revision's bytes, as they came, and what they mean. */
export interface Content {
  digest: string;
  /** The canonical text of adapter_config.json. */
  config: Buffer;
  /** The whole safetensors file. */
  body: Buffer;
  bound: BoundAdapter;
}

export interface StageReport {
  /** False where the revision was checked and is good, but no slot was free for it. */
  resident: boolean;
  /** 0 where the engine has no pages. */
  pages: number;
  /** True where every B is zero: the adapter changes nothing. */
  zeroEffect: boolean;
  /** Revisions without leases whose slots were taken for this one. */
  evicted: string[];
  packMs: number;
  /** Tensors with values that the engine's numbers cannot hold exactly. */
  rounded: number;
}

/** The first engine step that serves a change, and the number of changes so far. */
export interface Switched {
  engineStep: number;
  epoch: number;
}

export interface EngineInfo {
  slots: number;
  pages: number;
  kvBlocks: number;
}

export interface EngineSnapshot {
  /** Engine steps done since start. */
  step: number;
  /** Counts activations and deactivations. */
  epoch: number;
  pagesUsed: number;
  /** Of running sequences. */
  kvBlocksUsed: number;
  slots: { revision: string; state: 'staging' | 'ready' | 'retired'; leases: number }[];
}

/** What returns a promise rejects with `LorikeetError`s that a client may read. */
export interface AdapterEngine {
  readonly info: EngineInfo;
  /** Memory for a body that `stage` is to get, with anything in it. At least one byte. */
  allocate(bytes: number): Buffer;
  /**
   * Takes a revision in; serves nobody yet. Its bytes must not change until the promise settles. Evicts the least
   * recently used revision without leases if there is no room; where there is none, the report says so. A revision
   * that is resident already resolves at once; one that was released but still has leases is kept after all.
   */
  stage(content: Content): Promise<StageReport>;
  /**
   * Points `adapter` at a revision for all later requests; those fail with `not_resident` while it is in no slot. Running
   * requests that leave it to the activation go on with it where `migrates`.
   */
  activate(adapter: string, digest: string, migrates: boolean): Promise<Switched>;
  /** Takes the name away; running sequences keep their leases. */
  deactivate(adapter: string): Promise<Switched>;
  /** Frees the slot now, or when the last lease goes. Unknown revisions resolve to 0 leases. */
  release(digest: string): Promise<{ leases: number }>;
  /** Calls the listener once the last lease of a released revision is gone. */
  onFreed(listener: (digest: string) => void): void;
  /** Calls the listener after leases are gone: requests have ended or moved on. */
  onEnded(listener: () => void): void;
  snapshot(): EngineSnapshot;
  /** Later requests find nothing of what was computed so far. */
  resetPrefixCache(): void;
}

/** Computes tokens. */
export interface TokenEngine {
  /** Why the engine can serve nobody any more, or does not get on with its step; null while it can. */
  readonly failed: string | null;
  /**
   * Submits on the first `next()`, which throws an error with the code `invalid_argument` where the request itself is
   * wrong. Aborting, or leaving the loop early, cancels the sequence. `stepOf` is asked of each revision that it moves to.
   */
  generate(request: GenerateRequest, signal: AbortSignal, stepOf?: StepOf): AsyncGenerator<RequestEvent>;
}

/** What became of a sequence that had at least one token. */
export interface SequenceCourse {
  promptTokens: number;
  generatedTokens: number;
  /** From the request to its first step, from there to the first token, from there to the last. */
  queueSeconds: number;
  prefillSeconds: number;
  decodeSeconds: number;
}
