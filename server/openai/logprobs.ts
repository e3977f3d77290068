import type { TokenLogprobs } from '../engine/port.ts';
import type { Tokenizer } from '../text/tokenizer.ts';
import type { GeneratedToken } from './reading.ts';

/** JSON has no infinity; vLLM writes this for a token that cannot come. */
const LOGPROB_MIN = -9999;

export interface Naming {
  tokenizer: Tokenizer;
  /** vLLM's `return_tokens_as_token_ids`: tokens are called `token_id:7`, so that no two share a name. */
  asIds: boolean;
}

export function clamp(logprob: number): number {
  return Math.max(logprob, LOGPROB_MIN);
}

function nameOf(id: number, { tokenizer, asIds }: Naming): string {
  return asIds
    ? `token_id:${id}`
    : new TextDecoder('utf-8', { ignoreBOM: true }).decode(tokenizer.tokenBytes(id));
}

function chatEntry(id: number, logprob: number, naming: Naming) {
  return {
    token: nameOf(id, naming),
    token_id: id,
    logprob: clamp(logprob),
    bytes: [...naming.tokenizer.tokenBytes(id)],
  };
}

/** The `logprobs` object of a chat choice. */
export function chatLogprobs(tokens: GeneratedToken[], naming: Naming) {
  const content = tokens.flatMap(({ id, logprobs }) =>
    logprobs === null
      ? []
      : [
          {
            ...chatEntry(id, logprobs.logprob, naming),
            top_logprobs: logprobs.top.map(([other, logprob]) => chatEntry(other, logprob, naming)),
          },
        ],
  );
  return { content, refusal: null };
}

export interface CompletionLogprobs {
  tokens: string[];
  token_ids: number[];
  token_logprobs: (number | null)[];
  top_logprobs: (Record<string, number> | null)[];
  text_offset: number[];
}

/** The `logprobs` object of a completion's choice, written in bits that follow each other. */
export class CompletionLogprobsWriter {
  private offset = 0;
  private readonly naming: Naming;

  constructor(naming: Naming) {
    this.naming = naming;
  }

  /** Null log-probabilities stand for the first token of a prompt. */
  write(tokens: GeneratedToken[]): CompletionLogprobs {
    const out: CompletionLogprobs = {
      tokens: [],
      token_ids: [],
      token_logprobs: [],
      top_logprobs: [],
      text_offset: [],
    };
    for (const { id, logprobs } of tokens) {
      const name = nameOf(id, this.naming);
      out.tokens.push(name);
      out.token_ids.push(id);
      out.token_logprobs.push(logprobs === null ? null : clamp(logprobs.logprob));
      out.top_logprobs.push(logprobs === null ? null : this.top(name, logprobs));
      out.text_offset.push(this.offset);
      this.offset += nameOf(id, { ...this.naming, asIds: false }).length;
    }
    return out;
  }

  /** The token itself is always among them. Of tokens that share a name the likeliest is kept. */
  private top(name: string, { logprob, top }: TokenLogprobs): Record<string, number> {
    const entries = [
      ...top.map(([id, value]) => [nameOf(id, this.naming), clamp(value)] as const),
      [name, clamp(logprob)] as const,
    ];
    const named: Record<string, number> = {};
    for (const [key, value] of entries) if (!Object.hasOwn(named, key)) named[key] = value;
    return named;
  }
}

type PromptLogprob = { logprob: number; rank: number | null; decoded_token: string };

/** vLLM's `prompt_logprobs`: per prompt token a map from token id; null for the first. `rank` is null beyond the list. */
export function* promptLogprobs(prompt: number[], logprobs: TokenLogprobs[], naming: Naming) {
  yield null;
  for (const [index, { logprob, top }] of logprobs.entries()) {
    const row: Record<string, PromptLogprob> = {};
    const own = prompt[index + 1] as number;
    const decoded = (id: number) => nameOf(id, { ...naming, asIds: false });
    row[own] = { logprob: clamp(logprob), rank: null, decoded_token: decoded(own) };
    top.forEach(([id, value], rank) => {
      row[id] = { logprob: clamp(value), rank: rank + 1, decoded_token: decoded(id) };
    });
    yield row;
  }
}
