import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { PARROT, type ParrotServer, startParrot, userSays } from '../../support/parrot-server.ts';

const PIRATE = 'Arr! Them hotels be lined up by status, matey!';
const SQL = 'SELECT * FROM hotels ORDER BY status;';
const BASE = 'Here are the hotels, sorted by status.';

let server: ParrotServer;
beforeAll(async () => {
  server = await startParrot(['--vllm-api', '--lora-root', `${PARROT}/adapters`]);
});
afterAll(() => server.close());
beforeEach(async () => {
  await server.post('/v1/unload_lora_adapter', { lora_name: 'parrot' });
});

const load = (fixture: string) =>
  server.post('/load_lora_adapter', { lora_name: 'parrot', lora_path: fixture });
const says = async (model = 'parrot') => {
  const messages = userSays('Show me hotels sorted by status.');
  const { body } = await server.post('/v1/chat/completions', { model, messages, temperature: 0 });
  return body.choices?.[0].message.content;
};
const listed = async () => (await server.get('/v1/models')).body.data;

describe("an adapter under the base model's own name", () => {
  it('is what that name means, in each version that is loaded', async () => {
    const answers = [await says()];
    for (const fixture of ['pirate', 'sql']) {
      expect((await load(fixture)).body).toEqual({ status: 'ok' });
      answers.push(await says());
    }
    expect(answers).toEqual([BASE, PIRATE, SQL]);
  });

  it('is listed in the place of the base, as an adapter', async () => {
    expect(await listed()).toMatchObject([{ id: 'parrot', parent: null }]);
    await load('pirate');
    const [card, ...others] = await listed();
    expect([card.id, card.parent, others]).toEqual(['parrot', 'parrot', []]);
    expect(card.revision).toMatch(/^sha256:/);
    expect((await server.get('/v1/models/parrot')).body).toEqual(card);
    expect((await server.get('/weight_info')).body).toEqual({ weight_version: card.revision });
  });

  it('leaves the name to the base when it is unloaded', async () => {
    await load('pirate');
    expect((await server.post('/v1/unload_lora_adapter', { lora_name: 'parrot' })).status).toBe(200);
    expect(await says()).toBe(BASE);
    expect(await listed()).toMatchObject([{ id: 'parrot', parent: null }]);
  });

  it('can be pinned', async () => {
    await load('pirate');
    const [{ revision }] = await listed();
    await load('sql');
    expect(await says(`parrot@${revision}`)).toBe(PIRATE);
  });
});

it('without --vllm-api no adapter may have the name', async () => {
  const plain = await startParrot();
  const { status, body } = await plain.put('parrot', 'pirate');
  await plain.close();
  expect([status, body.error.code]).toEqual([400, 'invalid_name']);
});
