import { RANK_MAX, SLOTS, serveEveryAdapter } from '../attached/adapters.ts';
import { startVllm } from './engine.ts';

serveEveryAdapter({
  kind: 'vllm',
  start: () =>
    startVllm([
      '--enable-lora',
      `--max-lora-rank=${RANK_MAX}`,
      `--max-loras=${SLOTS}`,
      `--max-cpu-loras=${SLOTS}`,
    ]),
  refused: {},
  async greedy(url, model, prompt, tokens) {
    const response = await fetch(`${url}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({
        ...{ model, prompt, max_tokens: tokens, temperature: 0 },
        ...{ ignore_eos: true, return_token_ids: true },
      }),
    });
    const { choices } = (await response.json()) as { choices: [{ token_ids: number[] }] };
    return choices[0].token_ids;
  },
});
