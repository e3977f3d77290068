import { RANK_MAX, SLOTS, serveEveryAdapter } from '../attached/adapters.ts';
import { startSglang } from './engine.ts';

serveEveryAdapter({
  kind: 'sglang',
  start: () =>
    startSglang([
      `--max-lora-rank=${RANK_MAX}`,
      `--max-loras-per-batch=${SLOTS}`,
      `--max-loaded-loras=${SLOTS}`,
    ]),
  refused: {
    'rank-24': 'target_modules',
    'rank-pattern': 'rank_pattern',
    'regex-targets': 'target_modules',
    'some-layers': 'target_modules',
  },
  /** By its own route: it tells no ids by OpenAI's. */
  async greedy(url, model, prompt, tokens) {
    const response = await fetch(`${url}/generate`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({
        lora_path: model,
        input_ids: prompt,
        sampling_params: { max_new_tokens: tokens, temperature: 0, ignore_eos: true },
      }),
    });
    return ((await response.json()) as { output_ids: number[] }).output_ids;
  },
});
