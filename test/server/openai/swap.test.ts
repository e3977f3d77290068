import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { PodState } from '../../../server/contract/adapter-api.ts';
import {
  adapterFlags,
  type ParrotServer,
  sseObjects,
  startParrot,
  userSays,
} from '../../support/parrot-server.ts';

let server: ParrotServer;
beforeAll(async () => {
  server = await startParrot(adapterFlags(['sql']));
});
afterAll(() => server.close());

const HOTELS = userSays('Show me hotels sorted by status.');
const ask = async (model: string) =>
  (await server.post('/v1/chat/completions', { model, messages: HOTELS, temperature: 0 })).body;

/** Reads a stream until `chunks` objects have come; `rest` reads it to its end. */
async function begin(body: object, chunks: number) {
  const response = await fetch(`${server.serving}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ ...body, stream: true }),
  });
  const reader = (response.body as ReadableStream<Uint8Array>).getReader();
  const decoder = new TextDecoder();
  let text = '';
  const until = async (enough: () => boolean) => {
    while (!enough()) {
      const { done, value } = await reader.read();
      if (done) return;
      text += decoder.decode(value, { stream: true });
    }
  };
  await until(() => text.split('\n\n').length > chunks);
  const rest = async () => {
    await until(() => false);
    return sseObjects(text);
  };
  return { revision: response.headers.get('x-lora-revision'), rest, cancel: () => reader.cancel() };
}

const textOf = (chunks: { choices: { text: string }[] }[]) =>
  chunks.map(({ choices }) => choices[0]?.text).join('');

describe('a swap by PUT', () => {
  const LONG = {
    model: 'swap',
    prompt: [0, 151, 759, 613],
    temperature: 0,
    max_tokens: 500,
    ignore_eos: true,
  };

  it('leaves running streams on their revision and gives new requests the new one', async () => {
    const { revision: old } = (await server.put('swap', 'sql')).body;
    const reference = (await server.post('/v1/completions', LONG)).body.choices[0].text;
    const running = await begin(LONG, 5);
    const { status, body } = await server.put('swap', 'pirate');
    expect(status).toBe(200);
    expect(body.previous).toBe(old);

    expect((await ask('swap')).choices[0].message.content).toMatch(/^Arr!/);
    const chunks = await running.rest();
    expect(textOf(chunks)).toBe(reference);
    expect(running.revision).toBe(old);
    expect(chunks.at(-1).lora).toMatchObject({ revision: old, spans: [{ from: 0, revision: old }] });
  });

  it('keeps all choices of one response on one revision', async () => {
    await server.put('many', 'sql');
    const body = { model: 'many', messages: HOTELS, temperature: 0, n: 8 };
    const asking = Array.from({ length: 12 }, () => server.post('/v1/chat/completions', body));
    await server.put('many', 'pirate');
    const later = Array.from({ length: 4 }, () => server.post('/v1/chat/completions', body));
    const replies = await Promise.all([...asking, ...later]);
    for (const reply of replies) {
      const contents = new Set(
        reply.body.choices.map((choice: { message: { content: string } }) => choice.message.content),
      );
      expect(contents.size).toBe(1);
    }
    expect((await later.at(-1))?.body.choices[0].message.content).toMatch(/^Arr!/);
  });

  it('after a DELETE answers 404, never the base', async () => {
    await server.put('gone', 'json');
    const headers = { authorization: `Bearer ${server.token}` };
    const reply = await fetch(`${server.admin}/lora/v1/adapters/gone`, { method: 'DELETE', headers });
    expect(reply.ok).toBe(true);
    const after = await server.post('/v1/chat/completions', { model: 'gone', messages: HOTELS });
    expect(after.status).toBe(404);
  });
});

/** Digests of an adapter's revisions other than the current one. */
async function kept({ admin, token }: ParrotServer, name: string, current: string): Promise<string[]> {
  const headers = { authorization: `Bearer ${token}` };
  const state = (await (await fetch(`${admin}/lora/v1/state`, { headers })).json()) as PodState;
  const adapter = state.adapters.find((item) => item.name === name);
  return adapter?.revisions.map(({ digest }) => digest).filter((digest) => digest !== current) ?? [];
}

describe('more adapters than slots', () => {
  it('are all served: what is in the host tier is brought in when asked for', async () => {
    const small = await startParrot(['--slots', '1', ...adapterFlags(['sql', 'pirate', 'json'])]);
    const first = async (model: string) => {
      const { status, body } = await small.post('/v1/chat/completions', {
        model,
        messages: HOTELS,
        temperature: 0,
      });
      return status === 200 ? body.choices[0].message.content.slice(0, 6) : status;
    };
    for (let round = 0; round < 3; round += 1) {
      expect([await first('sql'), await first('pirate'), await first('json')]).toEqual([
        'SELECT',
        'Arr! T',
        '{"show',
      ]);
    }
    await small.put('sql', 'pirate', { 'x-lora-step': '2' });
    const { revision } = (await small.get('/v1/models/sql')).body;
    const [older] = await kept(small, 'sql', revision);
    expect([await first('sql'), await first(`sql@${older}`), await first('sql@step-2')]).toEqual([
      'Arr! T',
      'SELECT',
      'Arr! T',
    ]);
    await small.close();
  });
});

describe('a client that goes away', () => {
  const running = async () => {
    const { body } = await server.get('/metrics');
    return Number(/^vllm:num_requests_running\{[^}]*\} (\d+)$/m.exec(body)?.[1]);
  };
  const untilIdle = async () => {
    for (let tries = 0; tries < 100 && (await running()) > 0; tries += 1)
      await new Promise((again) => setTimeout(again, 10));
    return await running();
  };
  const endless = { model: 'sql', prompt: [0], max_tokens: 2000, ignore_eos: true };

  it('in mid-stream ends its sequence', async () => {
    const stream = await begin(endless, 3);
    expect(await running()).toBe(1);
    await stream.cancel();
    expect(await untilIdle()).toBe(0);
  });

  it('while it waits for a whole answer ends its sequences', async () => {
    const controller = new AbortController();
    const asked = server
      .post('/v1/completions', { ...endless, n: 3 }, controller.signal)
      .catch(() => 'aborted');
    while ((await running()) < 3) await new Promise((again) => setTimeout(again, 5));
    controller.abort();
    expect(await asked).toBe('aborted');
    expect(await untilIdle()).toBe(0);
  });
});
