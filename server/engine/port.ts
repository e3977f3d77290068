// What the server asks of an engine, in the server's words. Only server/engine knows which engine it is.

export type Target =
  | { kind: 'base' }
  /** Whatever revision is current when the engine takes the request in. */
  | { kind: 'adapter'; name: string }
  | { kind: 'revision'; digest: string };

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
  /** Alternatives to report per prompt token; -1 = none. */
  promptLogprobs: number;
  /** Multiplies the adapter's own scale; 1 = as trained. */
  loraScale: number;
}

/** Log-probabilities of the raw distribution (before temperature, penalties and bias). */
export interface TokenLogprobs {
  logprob: number;
  /** Most likely first. */
  top: [token: number, logprob: number][];
}

/** `not_resident`: the revision that the target means is in no slot. `non_finite`: the logits are. */
export type FailureCode =
  | 'adapter_not_found'
  | 'not_resident'
  | 'queue_full'
  | 'non_finite'
  | 'engine_failed'
  | 'closing';

/** Events of one request, in order: accepted or failed first, finished or failed last. */
export type RequestEvent =
  /** The request holds its lease; `revision` is null for the base. */
  | { type: 'accepted'; revision: string | null }
  /** Log-probabilities of prompt tokens 1 .. n-1; comes before the first token. */
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

export interface AdapterEngine {
  /** Why the engine can serve nobody any more, or null while it can. */
  readonly failed: string | null;
  /**
   * Submits on the first `next()`, which throws an error with the code `invalid_argument` where the request itself is
   * wrong. Aborting, or leaving the loop early, cancels the sequence.
   */
  generate(request: GenerateRequest, signal: AbortSignal): AsyncGenerator<RequestEvent>;
}
