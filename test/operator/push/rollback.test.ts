import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { LorikeetError } from '../../../server/contract/errors.ts';
import { digestOf, goodAdapter } from '../../support/adapter-files.ts';
import { TOKENS } from './fake-reviews.ts';
import { put, type Rig, startRig } from './harness.ts';
import { PATH, RawClient } from './raw-client.ts';

const PATH_BACK = PATH.replace('revisions', 'rollback');
let rig: Rig;

beforeEach(async () => {
  rig = await startRig();
});
afterEach(() => rig.close());

async function back(
  body: unknown,
  { query = '', token = TOKENS.trainer as string, to = rig as Pick<Rig, 'port'>, namespace = 'team-a' } = {},
): Promise<{ status: number; body: Record<string, unknown> }> {
  const response = await fetch(
    `http://127.0.0.1:${to.port}${PATH_BACK.replace('team-a', namespace)}${query}`,
    {
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      body: typeof body === 'string' ? body : JSON.stringify(body),
    },
  );
  return { status: response.status, body: (await response.json()) as Record<string, unknown> };
}

const digests = [1, 2].map((seed) => digestOf(goodAdapter(seed)));

async function pushTwice(): Promise<void> {
  for (const seed of [1, 2]) await put(rig, goodAdapter(seed), { headers: { 'x-lora-step': String(seed) } });
}

describe('a rollback', () => {
  it('is asked of the publisher, and answered as a push is', async () => {
    await pushTwice();
    const reply = await back({ to: 1, expectCurrent: digests[1] }, { query: '?timeout=5s' });
    expect(reply).toMatchObject({
      status: 200,
      body: { revision: digests[0], step: 1, noop: false, previous: digests[1] },
    });
    expect(Object.keys(reply.body.timings as object)).toEqual(['authMs', 'stageMs', 'activateMs', 'totalMs']);
    expect(rig.publisher.rollbacks[0]).toMatchObject({
      namespace: 'team-a',
      name: 'sql',
      to: 1,
      expectCurrent: digests[1],
      askedBy: 'system:serviceaccount:team-a:trainer',
    });
    expect(await back({})).toMatchObject({ status: 200, body: { revision: digests[0], noop: true } });
    expect(rig.inFlight).toEqual([0, 0]);
  });

  it('that not every pod has followed is answered 202', async () => {
    await pushTwice();
    const { rollback } = rig.publisher;
    rig.publisher.rollback = async (order) => {
      const result = await rollback.call(rig.publisher, order);
      return { ...result, pods: [{ name: 'pod-a', state: 'failed', ms: 1 }] };
    };
    expect((await back({})).status).toBe(202);
  });

  it.each([
    ['an unknown field', { inFlight: 'Migrate' }],
    ['a revision that is no digest', { to: 'step-1' }],
    ['no JSON', '{'],
    ['a list', []],
  ])('with %s is refused before it is asked for', async (_name, body) => {
    const reply = await back(body);
    expect(reply).toMatchObject({ status: 400, body: { error: { code: 'malformed_request' } } });
    expect(rig.publisher.rollbacks).toEqual([]);
  });

  it('to what is not kept is refused with what is', async () => {
    await pushTwice();
    const reply = await back({ to: 7 });
    const expected = [{ revision: digests[0], step: 1 }];
    expect(reply).toMatchObject({
      status: 404,
      body: { error: { code: 'revision_not_found', expected, actual: 7 } },
    });
  });

  it('needs the same right as a push', async () => {
    await pushTwice();
    expect((await back({}, { namespace: 'team-b' })).status).toBe(403);
    expect((await back({}, { token: TOKENS.expired })).status).toBe(401);
    const verbs = rig.reviews.asked.flatMap(({ spec }) => Object(spec.resourceAttributes).verb ?? []);
    expect(new Set(verbs)).toEqual(new Set(['update']));
    expect(rig.publisher.rollbacks).toEqual([]);
  });

  it('that takes longer than its timeout changes nothing', async () => {
    await pushTwice();
    const { promise, resolve } = Promise.withResolvers<void>();
    rig.publisher.gate = promise;
    const answered = back({}, { query: '?timeout=1ms' });
    setTimeout(resolve, 500);
    expect(await answered).toMatchObject({ status: 504, body: { error: { code: 'timeout' } } });
  });

  it('is sent on to the leader with its body', async () => {
    await pushTwice();
    const follower = await startRig();
    follower.leader.leading = null;
    const annotations = { 'lorikeet.dev/push-address': `127.0.0.1:${rig.port}` };
    follower.leader.holder = () => ({ identity: 'operator-0', annotations });
    const reply = await back({ to: digests[0] }, { to: follower });
    expect(reply).toMatchObject({ status: 200, body: { revision: digests[0], noop: false } });
    await follower.close();
  });

  it('is refused as the publisher says', async () => {
    rig.publisher.error = new LorikeetError('not_push_source', 'change spec.source');
    expect(await back({})).toMatchObject({ status: 409, body: { error: { code: 'not_push_source' } } });
  });
});

describe('the question why an adapter is where it is', () => {
  const ask = (path: string, token: string = TOKENS.trainer) =>
    fetch(`http://127.0.0.1:${rig.port}${path}`, { headers: { authorization: `Bearer ${token}` } });
  const PATH_WHY = PATH.replace('revisions', 'why');

  it('is answered by the publisher to those who may read', async () => {
    const answer = await ask(PATH_WHY);
    expect(answer.status).toBe(200);
    expect(await answer.json()).toEqual(rig.publisher.why('team-a', 'sql'));
    expect(rig.reviews.asked.at(-1)).toMatchObject({ spec: { resourceAttributes: { verb: 'get' } } });
    expect((await ask(PATH_WHY.replace('sql', 'other'))).status).toBe(404);
    expect((await ask(PATH_WHY, 'nobody')).status).toBe(401);
    rig.leader.leading = null;
    expect((await ask(PATH_WHY)).status).toBe(503);
  });
});

describe('the list of revisions', () => {
  it('says which ones a rollback may go back to', async () => {
    await pushTwice();
    const client = new RawClient(rig.port);
    client.head({}, { method: 'GET' });
    const reply = await client.reply();
    expect(reply?.body.revisions).toMatchObject([
      { revision: digests[0], step: 1, desired: false, earlier: true },
    ]);
    client.close();
  });
});
