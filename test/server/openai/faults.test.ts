import { describe, expect, it } from 'vitest';
import type { FailureCode } from '../../../native/types.ts';
import { LorikeetError } from '../../../server/contract/errors.ts';
import { createLog } from '../../../server/contract/log.ts';
import { StepWatch } from '../../../server/engine/step-watch.ts';
import type { NotReady } from '../../../server/openai/serving.ts';
import { sseObjects } from '../../support/parrot-server.ts';
import { accepted, failed, REVISION, serve, token } from './scripted-server.ts';

describe('a revision that is in no slot', () => {
  it('is brought in, and the request is served', async () => {
    const waits: unknown[] = [];
    const { post, submitted } = await serve({
      script: (_, attempt) =>
        attempt < 3
          ? [failed('not_resident')]
          : [accepted, token, { type: 'finished', reason: 'stop', stopToken: 4, logprobs: null }],
      waitForSlot: async (name, digest) => void waits.push([name, digest]),
    });
    const reply = await post({});
    expect(reply.status).toBe(200);
    expect(reply.headers.get('x-lora-revision')).toBe(REVISION);
    expect(reply.headers.get('x-lora-step')).toBe('3');
    expect(waits).toEqual([
      ['sql', null],
      ['sql', null],
    ]);
    expect(submitted).toHaveLength(3);
  });

  it('is given up after eight turns in which others were faster', async () => {
    const { post, submitted } = await serve({ script: () => [failed('not_resident')] });
    const reply = await post({});
    expect(reply.status).toBe(503);
    expect(reply.headers.get('retry-after')).toBe('1');
    expect(submitted).toHaveLength(9);
  });

  it('is refused where no slot can be had', async () => {
    const { post } = await serve({
      script: () => [failed('not_resident')],
      waitForSlot: async () => {
        throw new LorikeetError('no_capacity', 'every slot has leases');
      },
    });
    const reply = await post({});
    expect(reply.status).toBe(503);
    expect(reply.headers.get('retry-after')).toBe('1');
    expect(await reply.json()).toMatchObject({ error: { param: 'model', message: 'every slot has leases' } });
  });
});

describe('an engine that refuses', () => {
  it.each([
    ['adapter_not_found', 404],
    ['queue_full', 503],
    ['closing', 503],
    ['engine_failed', 500],
    ['something_new', 500],
  ])('with %s is answered %d, without its words', async (code, status) => {
    const { post } = await serve({ script: () => [failed(code as FailureCode)] });
    const reply = await post({ stream: true });
    expect(reply.status).toBe(status);
    expect(await reply.text()).not.toContain('secret detail');
  });

  it('in mid-stream ends the stream with an error', async () => {
    const { post } = await serve({ script: () => [accepted, token, failed('engine_failed')] });
    const reply = await post({ stream: true });
    const objects = sseObjects(await reply.text());
    expect(objects[0].choices[0].text).toBe('h');
    expect(objects.at(-1)).toEqual({
      error: { message: 'The engine failed.', type: 'InternalServerError', param: null, code: 500 },
    });
  });

  it('in mid-answer fails the whole answer', async () => {
    const { post } = await serve({ script: () => [accepted, token, failed('engine_failed')] });
    expect((await post({ n: 3 })).status).toBe(500);
  });

  it('for good is not healthy any more', async () => {
    const { url, post } = await serve({ script: () => [failed('engine_failed')] });
    expect((await fetch(`${url}/health`)).status).toBe(200);
    await post({});
    expect((await fetch(`${url}/health`)).status).toBe(503);
  });
});

describe('weights that overflow', () => {
  const message = `Revision ${REVISION} of the adapter "sql" overflows: it made logits that are not finite.`;
  const error = { message, type: 'UnprocessableEntityError', param: 'model', code: 422 };
  const script = () => [accepted, token, failed('non_finite')];

  it.each([false, true])('of an adapter are said to be its fault (stream: %s)', async (stream) => {
    const { post } = await serve({ script });
    const reply = await post({ stream });
    const said = await reply.text();
    expect(reply.status).toBe(stream ? 200 : 422);
    expect(stream ? sseObjects(said).at(-1) : JSON.parse(said)).toEqual({ error });
  });

  it('of an adapter are a warning without a stack', async () => {
    const lines: object[] = [];
    const log = createLog('warn', { write: (line) => void lines.push(JSON.parse(line)) });
    const { post } = await serve({ script, log });
    await post({});
    expect(lines).toEqual([
      {
        ...{ level: 'warn', time: expect.any(String), adapter: 'sql', revision: REVISION, msg: message },
        ...{ trace_id: expect.any(String), span_id: expect.any(String) },
      },
    ]);
  });

  it("of the base are the server's fault", async () => {
    const { post } = await serve({ script: () => [{ ...accepted, revision: null }, failed('non_finite')] });
    expect((await post({ model: 'parrot' })).status).toBe(500);
  });
});

describe('an engine whose step stands still', () => {
  it('is not healthy until it gets on', async () => {
    let nowMs = 0;
    let step = 1;
    const watch = new StepWatch(1000, () => nowMs);
    const { url } = await serve({ script: () => [], watch, progress: () => ({ step, running: 1 }) });
    const health = async () => (await fetch(`${url}/health`)).status;
    expect(await health()).toBe(200);
    nowMs = 1001;
    expect(await health()).toBe(503);
    step = 2;
    expect(await health()).toBe(200);
  });
});

describe('all choices of a response', () => {
  it('are submitted at once, so that no swap comes between them', async () => {
    let turn = 0;
    const turns: number[] = [];
    const { post, submitted } = await serve({
      script: () => {
        turns.push(turn);
        setImmediate(() => {
          turn += 1;
        });
        return [accepted, token, { type: 'finished', reason: 'length', stopToken: null, logprobs: null }];
      },
    });
    expect((await post({ n: 3 })).status).toBe(200);
    expect(submitted.map(({ target }) => target)).toEqual(Array(3).fill({ kind: 'adapter', name: 'sql' }));
    expect(turns).toEqual([0, 0, 0]);
  });

  it('are taken in all or none', async () => {
    const { post, submitted, cancelled } = await serve({
      script: (_, attempt) => [attempt === 2 ? failed('queue_full') : accepted],
    });
    expect((await post({ n: 3 })).status).toBe(503);
    expect(cancelled).toEqual([submitted[0]?.id, submitted[2]?.id]);
  });
});

describe('/ready', () => {
  it('says why not', async () => {
    let reason: NotReady = { code: 'not_seeded', message: 'Not all adapters are here.' };
    const { url } = await serve({ script: () => [], notReady: () => reason });
    const reply = await fetch(`${url}/ready`);
    expect(reply.status).toBe(503);
    expect(await reply.json()).toMatchObject({ error: { code: 503, reason: 'not_seeded' } });
    reason = null;
    expect((await fetch(`${url}/ready`)).status).toBe(200);
  });
});

describe('an answer without infinities', () => {
  it('writes -9999 for a token that cannot come', async () => {
    const logprobs = { logprob: Number.NEGATIVE_INFINITY, top: [[5, -0.1] as [number, number]] };
    const { post } = await serve({
      script: () => [
        accepted,
        { type: 'token', token: 77, logprobs },
        { type: 'finished', reason: 'length', stopToken: null, logprobs: null },
      ],
    });
    const { choices } = (await (await post({ logprobs: 1 })).json()) as { choices: { logprobs: object }[] };
    expect(choices[0]?.logprobs).toMatchObject({
      token_logprobs: [-9999],
      top_logprobs: [{ h: -9999, '<|pad|>': -0.1 }],
    });
  });
});
