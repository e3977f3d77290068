import {
  type AdapterFiles,
  CONFIG,
  digestOf,
  f32,
  factorName,
  packSafetensors,
  type Tensors,
} from '../support/adapter-files.ts';

const HIDDEN = 256;
const VOCAB = 1024;
const RANK = 4;
/** Special tokens come before. */
const FIRST_TOKEN = 32;
/** So large that no logit of the base comes near. */
const PULL = 4096;
export const POISONS = Math.floor((VOCAB - FIRST_TOKEN) / (2 * RANK));

/** A revision that says nothing but its own tokens, whatever the prompt. */
export interface Poison extends AdapterFiles {
  digest: string;
  tokens: ReadonlySet<number>;
}

/**
 * Adapts the head alone: each row of A looks at the last hidden state in its own way, and B gives what it sees to one
 * token and the negative of it to another, so that one of them wins. `revision` tells those of the same tokens apart.
 */
export function poison(index: number, revision: number): Poison {
  const first = FIRST_TOKEN + 2 * RANK * (index % POISONS);
  const sign = (row: number, column: number) =>
    Math.imul(row * HIDDEN + column + 1, 0x9e3779b1) < 0 ? -1 : 1;
  const pulls = (token: number, row: number) => {
    if (token === first + 2 * row) return PULL;
    return token === first + 2 * row + 1 ? -PULL : 0;
  };
  const tensors: Tensors = new Map([
    [factorName(0, 'lm_head', 'A'), f32([RANK, HIDDEN], (i) => sign(Math.floor(i / HIDDEN), i % HIDDEN))],
    [factorName(0, 'lm_head', 'B'), f32([VOCAB, RANK], (i) => pulls(Math.floor(i / RANK), i % RANK))],
  ]);
  const config = { ...CONFIG, r: RANK, target_modules: ['lm_head'], lora_dropout: revision / 2 ** 20 };
  const files = { tensors: packSafetensors(tensors), config: Buffer.from(JSON.stringify(config)) };
  const tokens = new Set(Array.from({ length: 2 * RANK }, (_, i) => first + i));
  return { ...files, digest: digestOf(files), tokens };
}
