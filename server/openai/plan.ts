import { createHash, randomInt } from 'node:crypto';
import type { GenerateRequest } from '../engine/port.ts';
import { badRequest } from './errors.ts';
import type { Reading } from './reading.ts';
import type { EitherBody } from './schemas.ts';
import type { ServedModel } from './serving.ts';

/** A request to the engine, but for who it is and which revisions it is for. */
export type Generation = Omit<GenerateRequest, 'target' | 'policy' | 'group'>;

export interface Wanted {
  prompt: number[];
  /** Null: as many as fit. */
  maxTokens: number | null;
  /** Alternatives per generated token, -1 = no log-probabilities. */
  logprobs: number;
  promptLogprobs: number;
}

export interface Plan {
  generation: Generation;
  reading: Reading;
}

/** One choice. Choices of one seeded request differ by `choice`, so that `n` gives different answers. */
export function planChoice(body: EitherBody, wanted: Wanted, model: ServedModel, choice: number): Plan {
  const maxTokens = tokensToGenerate(wanted, model);
  const endTokens = new Set([...(body.ignore_eos ? [] : model.eosTokenIds), ...body.stop_token_ids]);
  return {
    generation: {
      prompt: wanted.prompt,
      maxTokens,
      stopTokens: [...endTokens],
      temperature: body.temperature,
      topP: body.top_p,
      topK: Math.max(body.top_k, 0),
      minP: body.min_p,
      seed: body.seed === null ? randomInt(2 ** 48 - 1) : seedOf(body.seed, choice),
      presencePenalty: body.presence_penalty,
      frequencyPenalty: body.frequency_penalty,
      repetitionPenalty: body.repetition_penalty,
      logitBias: logitBias(body.logit_bias, model),
      logprobs: wanted.logprobs,
      // Of a prompt alone they are as of any prompt.
      logprobsMode: maxTokens === 0 ? 'raw' : body.logprobs_mode,
      promptLogprobs: wanted.promptLogprobs,
      promptLogprobsFrom: 1,
      cacheSalt: body.cache_salt ?? '',
      loraScale: body.lora.scale,
    },
    reading: {
      namedStops: new Set(body.stop_token_ids),
      stops: body.stop,
      includeStop: body.include_stop_str_in_output,
      skipSpecial: body.skip_special_tokens,
    },
  };
}

/** One of the engine's 2^53 seeds. Those beyond are hashed, so that no two that anybody sends come to the same draws. */
function seedOf(seed: bigint, choice: number): number {
  const wanted = seed + BigInt(choice);
  const fits = BigInt.asIntN(54, wanted) === wanted;
  return Number(BigInt.asUintN(53, fits ? wanted : hashOf(wanted)));
}

function hashOf(seed: bigint): bigint {
  return createHash('sha256').update(String(seed)).digest().readBigUInt64LE();
}

function tokensToGenerate({ prompt, maxTokens }: Wanted, model: ServedModel): number {
  const left = model.maxTokens - prompt.length;
  if (left < 0 || (left === 0 && maxTokens !== 0)) {
    throw badRequest(
      `The prompt has ${prompt.length} tokens, but at most ${model.maxTokens} fit, prompt and answer together`,
      'prompt',
    );
  }
  if (maxTokens !== null && maxTokens > left) {
    throw badRequest(
      `The prompt has ${prompt.length} tokens and ${maxTokens} were asked for, but at most ${model.maxTokens} fit together`,
      'max_tokens',
    );
  }
  return maxTokens ?? left;
}

function logitBias(bias: Record<string, number>, model: ServedModel): [number, number][] {
  return Object.entries(bias).map(([token, value]) => {
    requireToken(Number(token), model, 'logit_bias');
    return [Number(token), value];
  });
}

export function requireToken(token: number, model: ServedModel, param: string): void {
  if (token < model.vocabSize) return;
  throw badRequest(`Expected token ids below ${model.vocabSize} but received ${token}`, param);
}
