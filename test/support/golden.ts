import { readFileSync } from 'node:fs';
import { join } from 'node:path';

export interface GoldenCase {
  adapter: string;
  ids: number[];
  greedy: number[];
  /** Top-1 minus top-2 logit at each step. */
  margins: number[];
  text: string;
  key: string;
  /** Log-probabilities of the vocabulary after the prompt. */
  last: Float64Array;
  /** Log-probabilities of ids[1:]. */
  promptLogprobs: Float32Array;
}

export interface Golden {
  cases: GoldenCase[];
  /** Per adapter: how far transformers' own bf16 run is from its float32 run. */
  bf16Distance: Record<string, { max: number }>;
}

/** What transformers and PEFT computed for a fixture model. */
export function readGolden(modelDir: string): Golden {
  const { cases, bf16_distance } = JSON.parse(readFileSync(join(modelDir, 'golden/golden.json'), 'utf8'));
  const tensor = readFloats(join(modelDir, 'golden/golden.safetensors'));
  return {
    bf16Distance: bf16_distance,
    cases: cases.map((item: GoldenCase) => ({
      ...item,
      last: logSoftmax(tensor(`${item.key}.last`)),
      promptLogprobs: tensor(`${item.key}.prompt_logprobs`),
    })),
  };
}

function readFloats(path: string): (name: string) => Float32Array {
  const file = readFileSync(path);
  const headerBytes = Number(file.readBigUInt64LE());
  const header = JSON.parse(file.toString('utf8', 8, 8 + headerBytes));
  return (name) => {
    const [begin, end] = header[name].data_offsets;
    const data = file.subarray(8 + headerBytes + begin, 8 + headerBytes + end);
    return new Float32Array(Uint8Array.from(data).buffer);
  };
}

function logSoftmax(logits: Float32Array): Float64Array {
  const max = logits.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const sum = logits.reduce((total, logit) => total + Math.exp(logit - max), 0);
  return Float64Array.from(logits, (logit) => logit - max - Math.log(sum));
}
