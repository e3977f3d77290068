import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  ErrorReply,
  PodState,
  PutAdapterReply,
  type RevisionState,
} from '../../../server/contract/adapter-api.ts';
import { goodAdapter } from '../../support/adapter-files.ts';
import { brokenAdapters } from '../../support/broken-adapters.ts';
import { PARROT, type ParrotServer, startParrot, userSays } from '../../support/parrot-server.ts';

let server: ParrotServer;
beforeAll(async () => {
  server = await startParrot(['--slots', '2', '--max-rank', '64']);
});
afterAll(() => server.close());

async function admin(
  method: string,
  path: string,
  body?: Buffer | string,
  headers: Record<string, string> = {},
) {
  const authorization = `Bearer ${server.token}`;
  const response = await fetch(server.admin + path, {
    method,
    headers: { authorization, ...headers },
    ...(body ? { body } : {}),
  });
  // biome-ignore lint/suspicious/noExplicitAny: replies of many shapes.
  return { status: response.status, body: (await response.json()) as any };
}

async function state(): Promise<PodState> {
  return PodState.parse((await admin('GET', '/lora/v1/state')).body);
}

async function revision(name: string): Promise<RevisionState | undefined> {
  const adapter = (await state()).adapters.find((item) => item.name === name);
  return adapter?.revisions.find(({ digest }) => digest === adapter.current);
}

async function answer(model: string, question: string): Promise<{ text: string; lora: unknown }> {
  const request = { model, messages: userSays(question), max_tokens: 48, temperature: 0 };
  const { status, body } = await server.post('/v1/chat/completions', request);
  if (status !== 200) throw new Error(JSON.stringify(body));
  return { text: body.choices[0].message.content, lora: body.lora };
}

const ANSWERS = JSON.parse(readFileSync(join(PARROT, 'golden/answers.json'), 'utf8')) as Record<
  string,
  Record<string, string>
>;
const QUESTION = 'List the name of all players from Lima.';

describe('a pod with the real engine', () => {
  it('serves an adapter as soon as its PUT is answered, and the base as before', async () => {
    const before = await answer('parrot', QUESTION);
    expect(before.text).toBe(ANSWERS.base?.[QUESTION]);
    const reply = await server.put('sql', 'sql', { 'x-lora-step': '1' });
    const put = PutAdapterReply.parse(reply.body);
    expect(put.report).toMatchObject({ modules: 28, rank: 8, dtypes: ['F32'] });
    const after = await answer('sql', QUESTION);
    expect(after.text).toBe(ANSWERS.sql?.[QUESTION]);
    expect(after.lora).toMatchObject({ name: 'sql', revision: put.revision, step: 1 });
    expect(await answer('parrot', QUESTION)).toEqual(before);
    expect(await revision('sql')).toMatchObject({
      digest: put.revision,
      state: 'current',
      tier: 'slot',
      leases: 0,
      step: 1,
    });
  });

  it('swaps what a name means, and serves the earlier revision by its step', async () => {
    const sql = ANSWERS.sql?.[QUESTION];
    expect((await server.put('sql', 'pirate', { 'x-lora-step': '2' })).status).toBe(200);
    expect((await answer('sql', QUESTION)).text).toBe(ANSWERS.pirate?.[QUESTION]);
    expect((await answer('sql@step-1', QUESTION)).text).toBe(sql);
    expect((await server.put('sql', 'sql', { 'x-lora-step': '2' })).body.error.code).toBe('step_not_newer');
    expect((await server.put('sql', 'sql', { 'x-lora-step': '3' })).status).toBe(200);
    expect((await answer('sql', QUESTION)).text).toBe(sql);
  });

  it('serves more adapters than it has slots', async () => {
    const texts = new Map<string, string>();
    for (const name of ['pirate', 'json', 'rank-24', 'rank-pattern']) {
      expect((await server.put(name, name)).status).toBe(200);
      texts.set(name, (await answer(name, QUESTION)).text);
    }
    const { adapters, used } = await state();
    expect(used.slots).toBe(2);
    expect(
      adapters.flatMap(({ revisions }) => revisions).filter(({ tier }) => tier === 'host').length,
    ).toBeGreaterThan(2);
    for (const [name, text] of texts) expect((await answer(name, QUESTION)).text).toBe(text);
    for (const name of texts.keys())
      expect((await admin('DELETE', `/lora/v1/adapters/${name}`)).status).toBe(200);
  });

  it('refuses every broken adapter by a code and goes on serving', async () => {
    const text = (await answer('sql', QUESTION)).text;
    const before = await revision('sql');
    const verdicts: Record<string, string> = {};
    for (const { name, tensors, config, say } of brokenAdapters()) {
      const headers = {
        'content-type': 'application/octet-stream',
        'x-lora-config': config.toString('base64url'),
      };
      const target = name === 'none' ? 'right' : 'sql';
      const { status, body } = await admin('PUT', `/v1/adapters/${target}`, tensors, headers);
      if (name === 'none') {
        expect(status).toBe(200);
        continue;
      }
      expect([name, status >= 400 && status < 500]).toEqual([name, true]);
      const { error } = ErrorReply.parse(body);
      verdicts[name] = error.code;
      // Too long for a header: it does not come to its own fault.
      if (status !== 431) for (const word of say) expect(JSON.stringify(error)).toContain(word);
    }
    expect(Object.keys(verdicts)).toHaveLength(65);
    expect(verdicts).toMatchObject({
      nan: 'non_finite',
      infinite: 'non_finite',
      'zero-effect': 'zero_effect',
      'config-deep': 'header_too_large',
    });
    expect(await revision('sql')).toEqual(before);
    expect((await answer('sql', QUESTION)).text).toBe(text);
    expect((await admin('DELETE', '/lora/v1/adapters/right')).status).toBe(200);
  });

  it('keeps a stream on its revision while the name moves on', async () => {
    const abort = new AbortController();
    const request = {
      model: 'sql',
      messages: userSays(QUESTION),
      max_tokens: 1500,
      ignore_eos: true,
      stream: true,
    };
    const response = await fetch(`${server.serving}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(request),
      signal: abort.signal,
    });
    const old = response.headers.get('x-lora-revision');
    expect((await server.put('sql', 'json', { 'x-lora-step': '4' })).status).toBe(200);
    const revisions = (await state()).adapters.find(({ name }) => name === 'sql')?.revisions;
    expect(revisions?.find(({ digest }) => digest === old)).toMatchObject({ state: 'staged', leases: 1 });
    const removed = await admin('DELETE', '/lora/v1/adapters/sql');
    expect(removed).toMatchObject({ status: 202, body: { leases: 1 } });
    abort.abort();
    await expect.poll(async () => (await admin('DELETE', '/lora/v1/adapters/sql')).status).toBe(200);
    expect((await state()).adapters).toEqual([]);
    expect((await state()).used).toMatchObject({ slots: 0, pages: 0, hostBytes: 0 });
    expect((await server.post('/v1/chat/completions', { ...request, stream: false })).status).toBe(404);
  });

  it('stages 20 revisions at once under one name without mixing them up', async () => {
    const puts = Array.from({ length: 20 }, (_, i) => {
      const { tensors, config } = goodAdapter(i % 5);
      return admin('PUT', '/v1/adapters/rl', tensors, { 'x-lora-config': config.toString('base64url') });
    });
    const replies = await Promise.all(puts);
    expect(replies.map(({ status }) => status)).toEqual(Array.from({ length: 20 }, () => 200));
    const last = replies.reduce((a, b) => (b.body.epoch >= a.body.epoch ? b : a));
    expect((await revision('rl'))?.digest).toBe(last.body.revision);
    expect((await state()).adapters.find(({ name }) => name === 'rl')?.revisions.length).toBeLessThanOrEqual(
      3,
    );
  });
});
