import { ADAPTERS } from './adapters.ts';

export interface Case {
  name: string;
  kind: 'decode' | 'prefill';
  sequences: number;
  /** Different adapters among the sequences. */
  adapters: 0 | 1 | typeof ADAPTERS;
  /** Whether all adapters are loaded while it runs; those with adapters need them. */
  resident: boolean;
}

export const PREFILL_TOKENS = 512;
export const DECODE_PROMPT_TOKENS = 16;

const decode = (name: string, sequences: number, adapters: Case['adapters'], resident: boolean): Case => {
  return { name, kind: 'decode', sequences, adapters, resident };
};

export const CASES: readonly Case[] = [
  decode('decode-1', 1, 0, false),
  decode('decode-16', 16, 0, false),
  { name: 'prefill-512', kind: 'prefill', sequences: 1, adapters: 0, resident: false },
  decode('decode-1-resident', 1, 0, true),
  decode('decode-16-resident', 16, 0, true),
  decode('decode-1-lora', 1, 1, true),
  decode('decode-16-lora', 16, 1, true),
  decode('decode-16-loras', 16, ADAPTERS, true),
  { name: 'prefill-512-lora', kind: 'prefill', sequences: 1, adapters: 1, resident: true },
];

export const CASE_TITLES: Record<string, string> = {
  'decode-1': 'decode, 1 sequence, base',
  'decode-16': 'decode, 16 sequences, base',
  'prefill-512': 'prefill, 512 tokens, base',
  'decode-1-resident': 'decode, 1, base beside 16 adapters',
  'decode-16-resident': 'decode, 16, base beside 16 adapters',
  'decode-1-lora': 'decode, 1 with an adapter',
  'decode-16-lora': 'decode, 16 with one adapter',
  'decode-16-loras': 'decode, 16 with 16 adapters',
  'prefill-512-lora': 'prefill, 512 tokens, an adapter',
};

/** How much of everything is measured. */
export interface Effort {
  /** Tokens per sequence that are timed. */
  decodeTokens: number;
  /** Prefills that are timed. */
  prefills: number;
}

export const FULL: Effort = { decodeTokens: 32, prefills: 3 };
export const QUICK: Effort = { decodeTokens: 8, prefills: 1 };

/** Which adapter a sequence runs with, or null for the base. */
export function adapterOf({ adapters }: Case, sequence: number): number | null {
  return adapters === 0 ? null : sequence % adapters;
}

/** Seeded token ids, the same for all engines; special tokens are left out. */
export function promptTokens(seed: number, length: number, vocab: number): number[] {
  return Array.from({ length }, (_, i) => {
    const mixed = Math.imul(seed * 7919 + i + 1, 0x9e3779b1) >>> 0;
    return 300 + (((mixed ^ (mixed >>> 15)) >>> 0) % (vocab - 300));
  });
}
