import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { adapterFlags, type ParrotServer, sseObjects, startParrot } from '../../support/parrot-server.ts';

let server: ParrotServer;
let prompt: number[];
beforeAll(async () => {
  server = await startParrot(['--vllm-api', ...adapterFlags(['pirate'])]);
  const { body } = await server.post('/tokenize', {
    messages: [{ role: 'user', content: 'Show me hotels sorted by status.' }],
  });
  prompt = body.tokens;
});
afterAll(() => server.close());

const ask = (fields: object, sampling: object = {}) =>
  server.post('/inference/v1/generate', {
    model: 'pirate',
    token_ids: prompt,
    sampling_params: { temperature: 0, max_tokens: 4, ...sampling },
    ...fields,
  });
const completed = async (fields: object = {}) => {
  const { body } = await server.post('/v1/completions', {
    model: 'pirate',
    prompt,
    temperature: 0,
    max_tokens: 4,
    return_token_ids: true,
    ...fields,
  });
  return body.choices[0];
};

describe('/inference/v1/generate', () => {
  it('gives the tokens of a completion, and nothing but tokens', async () => {
    const { status, headers, body } = await ask({ request_id: 'mine' });
    const { token_ids } = await completed();
    expect(status).toBe(200);
    expect(body).toMatchObject({ request_id: 'mine', model: 'pirate', prompt_logprobs: null });
    const { spans } = body.lora;
    const choice = { index: 0, logprobs: null, finish_reason: 'length', token_ids, lora: { spans } };
    expect(body.choices).toEqual([choice]);
    expect(body.usage).toMatchObject({
      prompt_tokens: prompt.length,
      completion_tokens: 4,
      total_tokens: prompt.length + 4,
    });
    expect(headers.get('x-lora-revision')).toBe(body.lora.revision);
  });

  it('gives 16 tokens where it is not said how many', async () => {
    const { body } = await ask({ sampling_params: { ignore_eos: true } });
    expect(body.choices[0].token_ids).toHaveLength(16);
  });

  it('gives log-probabilities in the shape of chats, with tokens named by their ids', async () => {
    const { token_ids, logprobs } = (await ask({}, { logprobs: 2 })).body.choices[0];
    const wanted = (await completed({ logprobs: 2 })).logprobs.token_logprobs;
    expect(logprobs.content.map(({ logprob }: { logprob: number }) => logprob)).toEqual(wanted);
    expect(logprobs.content[0]).toMatchObject({ token: `token_id:${token_ids[0]}` });
    expect(logprobs.content[0].top_logprobs).toHaveLength(2);
  });

  it('gives several choices', async () => {
    const { choices } = (await ask({}, { n: 2, temperature: 1, seed: 1 })).body;
    expect(choices.map(({ index }: { index: number }) => index)).toEqual([0, 1]);
  });

  it('streams', async () => {
    const { body } = await ask({ stream: true, stream_options: { include_usage: true } });
    const chunks = sseObjects(body);
    const ids = chunks.flatMap(({ choices }) => choices[0]?.token_ids ?? []);
    expect(ids).toEqual((await completed()).token_ids);
    expect(chunks.at(-1).usage.completion_tokens).toBe(4);
  });

  it('is of the base where no model is named, and of nobody where the model is unknown', async () => {
    expect((await ask({ model: undefined })).body).toMatchObject({ model: 'parrot', lora: null });
    expect((await ask({ model: 'nobody' })).status).toBe(404);
  });

  it.each<[name: string, fields: object, param: string]>([
    ['no tokens', { token_ids: undefined }, 'token_ids'],
    ['an empty list', { token_ids: [] }, 'token_ids'],
    ['a text', { token_ids: 'Hi' }, 'token_ids'],
    ['lists of tokens', { token_ids: [[1]] }, 'token_ids'],
    ['a token that is none', { token_ids: [1, -1] }, 'prompt.1'],
    ['a token beyond the vocabulary', { token_ids: [1, 1 << 30] }, 'token_ids'],
    ['more tokens than fit', { token_ids: Array(3000).fill(1) }, 'prompt'],
    ['a salt of nothing', { cache_salt: '' }, 'cache_salt'],
    ['blocks of another server', { kv_transfer_params: {} }, 'kv_transfer_params'],
    ['images', { features: {} }, 'features'],
    ['a grammar', { sampling_params: { structured_outputs: {} } }, 'structured_outputs'],
    ['sampling of no kind', { sampling_params: 7 }, 'sampling_params'],
    ['a temperature below 0', { sampling_params: { temperature: -1 } }, 'temperature'],
    [
      'prompt log-probabilities in a stream',
      { stream: true, sampling_params: { prompt_logprobs: 1 } },
      'prompt_logprobs',
    ],
  ])('refuses %s', async (_name, fields, param) => {
    const { status, body } = await ask(fields);
    expect([status, body.error?.param]).toEqual([400, param]);
  });
});
