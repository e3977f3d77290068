import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  adapterFlags,
  type ParrotServer,
  type Reply,
  sseObjects,
  startParrot,
  userSays,
} from '../../support/parrot-server.ts';

let server: ParrotServer;
/** Of the adapter `live`: step 1 is kept, step 2 current. */
let older: string;
let current: string;
beforeAll(async () => {
  server = await startParrot(adapterFlags(['sql']));
  older = (await server.put('live', 'sql', { 'x-lora-step': '1' })).body.revision;
  current = (await server.put('live', 'pirate', { 'x-lora-step': '2' })).body.revision;
});
afterAll(() => server.close());

const ENDPOINTS = [
  { path: '/v1/completions', prompt: { prompt: 'Hi' } },
  { path: '/v1/chat/completions', prompt: { messages: userSays('Hi') } },
];
const COMPLETION = { model: 'live', prompt: 'Hi', max_tokens: 2 };

async function ask(
  body: object,
  headers: Record<string, string> = {},
  path = '/v1/completions',
): Promise<Reply> {
  const response = await fetch(server.serving + path, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify({ ...COMPLETION, ...body }),
  });
  const text = await response.text();
  const isJson = response.headers.get('content-type')?.startsWith('application/json');
  return { status: response.status, headers: response.headers, body: isJson ? JSON.parse(text) : text };
}

describe.each(ENDPOINTS)('a request to $path that expects a revision', ({ path, prompt }) => {
  it.each([
    ['the digest of the current one', () => ({ revision: current }), () => current],
    ['its first digits', () => ({ revision: current.slice(7, 13) }), () => current],
    ['the digest of one that is kept', () => ({ revision: older }), () => older],
    ['its step', () => ({ min_step: 2 }), () => current],
    ['an earlier step', () => ({ min_step: 1 }), () => current],
  ])('by %s gets it, at once and streamed, in all choices', async (_how, wanted, made) => {
    const body = { ...prompt, n: 3, lora: { expect: wanted() } };
    const whole = await ask(body, {}, path);
    expect(whole.body.choices).toHaveLength(3);
    expect(whole.body.lora.revision).toBe(made());
    const streamed = await ask({ ...body, stream: true }, {}, path);
    const named = sseObjects(streamed.body).flatMap(({ lora }) => (lora ? [lora.revision] : []));
    expect(named).toEqual([made(), made(), made()]);
  });

  it.each([{ stream: false }, { stream: true }])('that does not come gets no token: %j', async (stream) => {
    const reply = await ask(
      { ...prompt, ...stream, lora: { expect: { min_step: 3 }, wait_ms: 0 } },
      {},
      path,
    );
    expect(reply.status).toBe(409);
    expect(reply.headers.get('retry-after')).toBeNull();
    expect(reply.headers.get('x-lora-revision')).toBeNull();
    expect(reply.body).toEqual({
      error: {
        message: `Expected min_step=3 for "live" but received revision ${current} of step 2.`,
        type: 'ConflictError',
        param: 'lora.expect',
        code: 409,
      },
    });
  });

  it('in a header is held to it too', async () => {
    const waits = { 'x-lora-wait-ms': '0' };
    const met = await ask(prompt, { 'x-lora-expect': `revision=${older}`, ...waits }, path);
    expect(met.body.lora.revision).toBe(older);
    expect((await ask(prompt, { 'x-lora-expect': 'min_step=3', ...waits }, path)).status).toBe(409);
  });
});

it('a request that waits is answered by the revision that comes', async () => {
  await server.put('late', 'sql', { 'x-lora-step': '1' });
  const asked = ask({ model: 'late', lora: { expect: { min_step: 2 }, wait_ms: 60_000 } });
  const { revision } = (await server.put('late', 'json', { 'x-lora-step': '2' })).body;
  expect((await asked).body.lora).toMatchObject({ revision, step: 2 });
});

it('what body and header say alike is taken', async () => {
  const lora = { expect: { revision: current }, wait_ms: 0 };
  const headers = { 'x-lora-expect': `revision=${current.slice(7)}`, 'x-lora-wait-ms': '0' };
  expect((await ask({ lora }, headers)).status).toBe(200);
});

const DIGITS = '0123456789ab';

it.each([
  ['of the base', { model: 'parrot', lora: { expect: { min_step: 1 } } }, {}, 'lora.expect'],
  ['by two ways', { lora: { expect: { min_step: 1, revision: DIGITS } } }, {}, 'lora.expect'],
  ['by none', { lora: { expect: {} } }, {}, 'lora.expect'],
  ['by five digits', { lora: { expect: { revision: '01234' } } }, {}, 'lora.expect.revision'],
  ['by a step below 0', { lora: { expect: { min_step: -1 } } }, {}, 'lora.expect.min_step'],
  ['by another field', { lora: { expect: { step: 1 } } }, {}, 'lora.expect.step'],
  ['for too long', { lora: { expect: { min_step: 1 }, wait_ms: 60_001 } }, {}, 'lora.wait_ms'],
  [
    'otherwise than the header',
    { lora: { expect: { min_step: 1 } } },
    { 'x-lora-expect': 'min_step=2' },
    'lora.expect',
  ],
  ['for another time', { lora: { wait_ms: 1 } }, { 'x-lora-wait-ms': '2' }, 'lora.wait_ms'],
  ['in a header of other words', {}, { 'x-lora-expect': 'step=1' }, null],
  ['in a header for too long', {}, { 'x-lora-wait-ms': '60001' }, null],
])('a revision expected %s is refused', async (_how, body, headers: Record<string, string>, param) => {
  const reply = await ask(body, headers);
  expect([reply.status, reply.body.error.param]).toEqual([400, param]);
});
