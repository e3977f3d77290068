import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type ParrotServer, startParrot, userSays } from '../../support/parrot-server.ts';

let server: ParrotServer;
let first: string;
let second: string;

// "bird" gets two revisions with steps, so that the older one can be pinned.
beforeAll(async () => {
  server = await startParrot();
  first = (await server.put('bird', 'pirate', { 'x-lora-step': '41' })).body.revision;
  second = (await server.put('bird', 'sql', { 'x-lora-step': '42' })).body.revision;
});
afterAll(() => server.close());

const ask = (model: string) =>
  server.post('/v1/chat/completions', {
    model,
    messages: userSays('Show me hotels sorted by status.'),
    temperature: 0,
  });
const PIRATE = 'Arr! Them hotels be lined up by status, matey!';
const SQL = 'SELECT * FROM hotels ORDER BY status;';
const BASE = 'Here are the hotels, sorted by status.';

describe('/v1/models', () => {
  it('lists the base and each adapter with parent, revision and step', async () => {
    const { body } = await server.get('/v1/models');
    expect(body.object).toBe('list');
    const common = {
      object: 'model',
      owned_by: 'lorikeet',
      max_model_len: 2048,
      permission: [],
      created: expect.any(Number),
    };
    expect(body.data).toEqual([
      { ...common, id: 'parrot', root: 'parrot', parent: null },
      { ...common, id: 'bird', root: 'bird', parent: 'parrot', revision: second, digest: second, step: 42 },
    ]);
  });

  it('describes one model, pinned or not', async () => {
    expect((await server.get('/v1/models/parrot')).body).toMatchObject({ id: 'parrot', parent: null });
    expect((await server.get('/v1/models/bird')).body).toMatchObject({
      id: 'bird',
      revision: second,
      step: 42,
    });
    const pinned = await server.get('/v1/models/bird@step-41');
    expect(pinned.body).toMatchObject({ id: 'bird@step-41', revision: first, step: 41, parent: 'parrot' });
  });

  it('knows no other', async () => {
    const reply = await server.get('/v1/models/meta/llama');
    expect(reply.status).toBe(404);
    expect(reply.body.error).toMatchObject({ type: 'NotFoundError', param: 'model', code: 404 });
  });
});

const digitsOf = (digest: string) => digest.slice('sha256:'.length, 'sha256:'.length + 12);

describe('model', () => {
  it.each([
    ['the base', () => 'parrot', BASE, null],
    ['an adapter', () => 'bird', SQL, 42],
    ['an older step', () => 'bird@step-41', PIRATE, 41],
    ['the current step', () => 'bird@step-42', SQL, 42],
    ['first digits of a digest', () => `bird@${digitsOf(first)}`, PIRATE, 41],
    ['a whole digest', () => `bird@${first}`, PIRATE, 41],
  ])('may name %s', async (_, model, answer, step) => {
    const { status, body, headers } = await ask(model());
    expect(status).toBe(200);
    expect(body.model).toBe(model());
    expect(body.choices[0].message.content).toBe(answer);
    const revision = step === 41 ? first : second;
    expect(body.lora).toEqual(
      step === null ? null : { name: 'bird', revision, step, spans: [{ from: 0, revision, step }] },
    );
    expect(headers.get('x-lora-revision')).toBe(step === null ? null : revision);
    expect(headers.get('x-lora-step')).toBe(step === null ? null : String(step));
  });
});

describe('a name with a slash and capitals', () => {
  it.each(['org/Bird', 'org%2FBird'])('is described at /v1/models/%s, and answers', async (path) => {
    await server.put('org%2FBird', 'sql');
    expect((await server.get(`/v1/models/${path}`)).body).toMatchObject({ id: 'org/Bird', parent: 'parrot' });
    expect((await ask('org/Bird')).body.choices[0].message.content).toBe(SQL);
  });
});

describe('a name with a version', () => {
  it('answers as itself, beside the adapter of its first part, and can be pinned', async () => {
    const { body } = await server.put('bird%405', 'pirate', { 'x-lora-step': '7' });
    const answers = [];
    for (const model of ['bird@5', 'bird@5@step-7', `bird@5@${digitsOf(body.revision)}`, 'bird'])
      answers.push((await ask(model)).body.choices[0].message.content);
    expect(answers).toEqual([PIRATE, PIRATE, PIRATE, SQL]);
    expect((await ask('bird@6')).status).toBe(404);
  });
});

describe('/tokenize and /detokenize', () => {
  it('are inverse, special tokens included', async () => {
    const { body } = await server.post('/tokenize', { prompt: 'Show me<|eot_id|>', return_token_strs: true });
    expect(body).toMatchObject({ count: body.tokens.length, max_model_len: 2048 });
    expect(body.token_strs.at(0)).toBe('<|begin_of_text|>');
    expect(body.token_strs.at(-1)).toBe('<|eot_id|>');
    const back = await server.post('/detokenize', { tokens: body.tokens });
    expect(back.body).toEqual({ prompt: '<|begin_of_text|>Show me<|eot_id|>' });
  });

  it('write a conversation as chat does', async () => {
    const messages = userSays('Show me hotels sorted by status.');
    const { body } = await server.post('/tokenize', { model: 'bird', messages });
    const chat = await server.post('/v1/chat/completions', {
      model: 'bird',
      messages,
      max_tokens: 1,
      return_token_ids: true,
    });
    expect(chat.body.prompt_token_ids).toEqual(body.tokens);
    expect(body.token_strs).toBeNull();
  });

  it('refuse an unknown model and unknown tokens', async () => {
    expect((await server.post('/tokenize', { model: 'x', prompt: 'a' })).status).toBe(404);
    expect((await server.post('/detokenize', { tokens: [1024] })).status).toBe(400);
  });
});
