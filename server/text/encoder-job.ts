import type { Tokenizer } from './tokenizer.ts';

export interface EncodeJob {
  text: string;
  addSpecial: boolean;
  /** Untrusted parts of the text went through `Tokenizer.defuse`. */
  guarded: boolean;
}

export class EncoderError extends Error {
  readonly code: 'too_many_jobs' | 'too_slow' | 'closed';

  constructor(code: EncoderError['code'], message: string) {
    super(message);
    this.code = code;
  }
}

export function runEncodeJob(tokenizer: Tokenizer, { text, addSpecial, guarded }: EncodeJob): number[] {
  return guarded ? tokenizer.encodeGuarded(text, { addSpecial }) : tokenizer.encode(text, { addSpecial });
}
