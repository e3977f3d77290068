import { z } from 'zod';
import type { Sample } from './recorder.ts';

/** What a trainer reads of an answer. */
export const Choices = z
  .array(
    z.object({ token_ids: z.array(z.number()), logprobs: z.object({ token_logprobs: z.array(z.number()) }) }),
  )
  .length(1);
const Answer = z.object({ choices: Choices });

export async function askBase(url: string, model: string): Promise<void> {
  const sampling = { max_tokens: 4, temperature: 1, logprobs: 0, return_token_ids: true };
  await complete(url, JSON.stringify({ model, prompt: [0], ...sampling }));
}

/** Log-probabilities without temperature: the trainer's own request once more, whose seed brings the same tokens. */
export async function rawLogprobs(url: string, { request, tokens }: Sample): Promise<number[]> {
  // Not parsed and written anew, which would round the seed.
  const body = request.replace(/\}\s*$/, ', "logprobs_mode": "raw"}');
  const [choice] = Answer.parse(JSON.parse(await complete(url, body))).choices;
  if (choice?.token_ids.join() !== tokens.join())
    throw new Error(`Expected the tokens ${tokens} once more but received ${choice?.token_ids}`);
  return choice.logprobs.token_logprobs;
}

/** Loads a version that was kept, whether it is loaded still or not. */
export async function loadAgain(url: string, { version, adapterDir }: Sample): Promise<void> {
  await post(`${url}/load_lora_adapter`, JSON.stringify({ lora_name: version, lora_path: adapterDir }));
}

export async function unload(url: string, { version }: Sample): Promise<void> {
  await post(`${url}/v1/unload_lora_adapter`, JSON.stringify({ lora_name: version }));
}

function complete(url: string, body: string): Promise<string> {
  return post(`${url}/v1/completions`, body);
}

async function post(url: string, body: string): Promise<string> {
  const headers = { 'content-type': 'application/json' };
  const reply = await fetch(url, { method: 'POST', headers, body });
  const text = await reply.text();
  if (reply.status !== 200) throw new Error(`Expected 200 but received ${reply.status}: ${text}`);
  return text;
}
