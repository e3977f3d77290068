import { Agent } from 'undici';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { ServerPool } from '../../../operator/api/server-pool.ts';
import { type Clock, systemClock } from '../../../operator/kube/clock.ts';
import { readAdminToken } from '../../../operator/pods/admin-token.ts';
import { PodClient } from '../../../operator/pods/client.ts';
import { TokenSource } from '../../../operator/pods/token.ts';
import { PodUnreachable } from '../../../server/transfer/unreachable.ts';
import { digestOf, goodAdapter } from '../../support/adapter-files.ts';
import { POD_TOKEN, ScriptedPod } from '../../support/pod/scripted-pod.ts';
import { serverPool } from '../adapter/objects.ts';
import { FakeClock } from '../kube/fake-clock.ts';

const TIMEOUTS = { shortMs: 300, stallMs: 300, silenceMs: 500, transferMs: 2_000, watchIdleMs: 25_000 };
const signal = new AbortController().signal;
const files = goodAdapter(1);
const digest = digestOf(files);
const config = JSON.parse(files.config.toString('utf8')) as unknown;
const fence = { term: 1, sequence: 1 };

let pod: ScriptedPod;
let dispatcher: Agent;
let life: AbortController;
let tokens: string[];
let reads: number;
let client: PodClient;

beforeEach(async () => {
  pod = await ScriptedPod.start({ host: '127.0.2.1' });
  dispatcher = new Agent();
  life = new AbortController();
  tokens = [POD_TOKEN];
  reads = 0;
  const read = async () => {
    reads += 1;
    return { token: (tokens.length > 1 ? tokens.shift() : tokens[0]) ?? '', previous: null };
  };
  client = new PodClient({
    adminUrl: pod.url,
    dispatcher,
    token: new TokenSource(read, systemClock),
    life: life.signal,
    timeouts: TIMEOUTS,
  });
});

afterEach(async () => {
  life.abort();
  await pod.stop();
  await dispatcher.destroy();
});

const stage = (name = 'sql') =>
  client.stage(name, digest, files.tensors, { size: files.tensors.length, config, step: 3, fence, signal });

describe('a pod', () => {
  it('is given a revision, serves it, gives it back, and loses it', async () => {
    expect(await stage()).toMatchObject({ revision: digest, existed: false, step: 3 });
    await client.activate('sql', { revision: digest }, fence, signal);
    expect((await client.state(signal)).adapters[0]).toMatchObject({ name: 'sql', current: digest, fence });

    const back = await client.fetch('sql', digest, signal);
    const chunks: Uint8Array[] = [];
    for await (const chunk of back.body) chunks.push(chunk);
    expect(Buffer.concat(chunks).equals(files.tensors)).toBe(true);
    expect(back.config).toEqual(config);

    expect(await client.remove('sql', null, { term: 1, sequence: 2 }, signal)).toMatchObject({
      removed: [digest],
    });
    await client.seeded(fence, signal);
    expect(await client.state(signal)).toMatchObject({ adapters: [], seeded: true });
  });

  it('is not told to change anything by who may no more, however long ago it was called', async () => {
    const asked = Promise.withResolvers<void>();
    let mayAct = true;
    const token = new TokenSource(async () => {
      await asked.promise;
      return { token: POD_TOKEN, previous: null };
    }, systemClock);
    const frozen = new PodClient({
      ...{ adminUrl: pod.url, dispatcher, token, life: life.signal, timeouts: TIMEOUTS },
      mayAct: () => mayAct,
    });
    const activating = frozen.activate('sql', { revision: digest }, fence, signal);
    mayAct = false;
    asked.resolve();
    await expect(activating).rejects.toMatchObject({ code: 'not_leader' });
    await frozen.state(signal);
    expect(pod.calls.map(({ operation }) => operation)).toEqual(['state']);
  });

  it('refuses in the words of the catalogue', async () => {
    await expect(client.activate('sql', { revision: digest }, fence, signal)).rejects.toMatchObject({
      name: 'LorikeetError',
      code: 'revision_not_found',
    });
    await stage();
    await client.activate('sql', { revision: digest }, { term: 5, sequence: 1 }, signal);
    await expect(client.remove('sql', null, fence, signal)).rejects.toMatchObject({ code: 'stale_fence' });
  });

  it('that answers with something else is unreachable, not empty', async () => {
    pod.fail('state', { kind: 'garbage' }, 2);
    await expect(client.state(signal)).rejects.toThrow(PodUnreachable);
    await expect(client.state(signal)).rejects.toThrow('not of the admin API');
  });

  it('that hangs costs a bounded time, then none until it answers again', async () => {
    pod.fail('state', { kind: 'hang' }, 3);
    for (let call = 0; call < 3; call += 1) {
      await expect(client.state(signal)).rejects.toThrow('no answer in time');
    }
    const calls = pod.count('state');
    expect(client.responsive).toBe(false);
    await expect(client.state(signal)).rejects.toThrow('did not answer several calls');
    expect(pod.count('state')).toBe(calls);

    for await (const state of client.watch(signal)) {
      expect(state.adapters).toEqual([]);
      break;
    }
    expect(client.responsive).toBe(true);
    await client.state(signal);
  });

  it('that takes no more bytes is given up before its deadline', async () => {
    pod.fail('stage', { kind: 'hang' });
    const big = Buffer.alloc(8 << 20);
    const startMs = performance.now();
    const staging = client.stage('sql', digest, big, { size: big.length, config, step: null, fence, signal });
    await expect(staging).rejects.toThrow(/took no byte|no answer in time/);
    expect(performance.now() - startMs).toBeLessThan(1_500);
  });

  it('is not blamed for a source that is slow', async () => {
    async function* slowly() {
      yield files.tensors.subarray(0, 1_000);
      await new Promise((resolve) => setTimeout(resolve, 2 * TIMEOUTS.stallMs));
      yield files.tensors.subarray(1_000);
    }
    const options = { size: files.tensors.length, config, step: null, fence, signal };
    expect(await client.stage('sql', digest, slowly(), options)).toMatchObject({ revision: digest });
  });

  it('is not blamed for a caller that leaves', async () => {
    pod.fail('state', { kind: 'hang' }, 10);
    for (let call = 0; call < 4; call += 1) {
      const caller = AbortSignal.timeout(20);
      await expect(client.state(caller)).rejects.toThrow();
    }
    expect(client.responsive).toBe(true);
  });

  it('has few calls at a time, and its waiting callers leave when they must', async () => {
    pod.fail('state', { kind: 'hang' }, 4);
    const hanging = Array.from({ length: 4 }, () => client.state(signal).catch((error: unknown) => error));
    const impatient = client.state(AbortSignal.timeout(50));
    await expect(impatient).rejects.toThrow(PodUnreachable);
    expect(pod.count('state')).toBeLessThanOrEqual(4);
    await Promise.all(hanging);
  });
});

describe('calls of one pod', () => {
  /** The first bytes, and the rest once `rest` resolves. */
  async function* inTwo(rest: Promise<unknown>) {
    yield files.tensors.subarray(0, 1_000);
    await rest;
    yield files.tensors.subarray(1_000);
  }
  const options = { size: files.tensors.length, config, step: null, fence };

  it.each([
    [
      'uploads',
      'upload',
      (body: AsyncIterable<Uint8Array>) => client.upload('sql', body, { ...options, signal }),
    ],
    [
      'copies',
      'stage',
      (body: AsyncIterable<Uint8Array>) => client.stage('sql', digest, body, { ...options, signal }),
    ],
  ] as const)('that are short do not wait for slow %s', async (_name, operation, send) => {
    const rest = Promise.withResolvers<void>();
    const slow = Array.from({ length: 4 }, () => send(inTwo(rest.promise)));
    await expect.poll(() => pod.count(operation)).toBe(4);
    expect((await client.state(signal)).adapters).toEqual([]);
    rest.resolve();
    await Promise.all(slow);
  });

  it('that are uploads do not wait for four slow trainers', async () => {
    const rest = Promise.withResolvers<void>();
    const slow = Array.from({ length: 4 }, (_, index) =>
      client.upload(`slow-${index}`, inTwo(rest.promise), { ...options, signal }),
    );
    await expect.poll(() => pod.count('upload')).toBe(4);
    expect(await client.upload('sql', files.tensors, { ...options, signal })).toMatchObject({
      revision: digest,
    });
    rest.resolve();
    await Promise.all(slow);
  });

  // Over a second, for the waiting and the call together must take longer than one call may.
  it('have all of their time, however long they waited for a place', async () => {
    const transferMs = 700;
    const patient = new PodClient({
      adminUrl: client.adminUrl,
      dispatcher,
      token: new TokenSource(async () => ({ token: POD_TOKEN, previous: null }), systemClock),
      life: life.signal,
      timeouts: { ...TIMEOUTS, transferMs },
    });
    const later = () => new Promise((resolve) => setTimeout(resolve, 0.6 * transferMs));
    const never = new Promise(() => {});
    const leaving = new AbortController();
    const holders = Array.from({ length: 4 }, () =>
      patient.stage('sql', digest, inTwo(never), { ...options, signal: leaving.signal }),
    );
    const gone = Promise.allSettled(holders);
    const waiting = patient.stage('sql', digest, inTwo(later().then(later)), { ...options, signal });
    await later();
    leaving.abort(new Error('the caller left'));
    expect(await waiting).toMatchObject({ revision: digest });
    await gone;
  });
});

describe('the admin token', () => {
  it('is read once, and again after a refusal', async () => {
    tokens = ['an-old-token', POD_TOKEN];
    await new Promise((resolve) => setTimeout(resolve, 1));
    await client.state(signal).catch(() => null);
    await new Promise((resolve) => setTimeout(resolve, 1_050));
    await client.state(signal);
    await client.state(signal);
    expect(reads).toBe(2);
  });

  it('of before is shown to pods that have not seen the new one yet', async () => {
    const clock = new FakeClock();
    tokens = [POD_TOKEN, 'the-next-token'];
    const token = new TokenSource(
      async () => ({ token: tokens.shift() ?? 'the-next-token', previous: null }),
      clock,
    );
    const talk = () =>
      new PodClient({ adminUrl: client.adminUrl, dispatcher, token, life: life.signal, timeouts: TIMEOUTS });
    await talk().state(signal);
    await clock.advance(5 * 60_000);
    const later = talk();
    await later.state(signal);
    // The one that it took is shown first from then on, also with a body that cannot be sent twice.
    await later.stage('sql', digest, files.tensors, {
      size: files.tensors.length,
      config,
      step: 3,
      fence,
      signal,
    });
    expect(tokens).toEqual([]);

    await clock.advance(15 * 60_000);
    await expect(talk().state(signal)).rejects.toMatchObject({ code: 'unauthenticated' });
  });

  describe('of before that the Secret keeps', () => {
    let secret: Record<string, string>;
    let shown: unknown[];
    const pool = (key = 'token'): ServerPool => {
      const { spec, ...rest } = serverPool(pod.port);
      const auth = { tokenSecretRef: { name: 'admin', key } };
      return { ...rest, spec: { ...spec, admin: { ...spec.admin, auth } } };
    };
    /** A process that has just started remembers no token. */
    const restarted = (of: ServerPool = pool(), clock: Clock = systemClock) => {
      const read = readAdminToken(async () => secret);
      const token = new TokenSource(() => read(of), clock);
      return new PodClient({
        adminUrl: pod.url,
        dispatcher: dispatcher.compose((dispatch) => (options, handler) => {
          shown.push((options.headers as Record<string, string>).authorization);
          return dispatch(options, handler);
        }),
        token,
        life: life.signal,
        timeouts: TIMEOUTS,
      });
    };

    beforeEach(() => {
      shown = [];
    });

    it('opens pods that lack the new one to an operator that has just started', async () => {
      secret = { token: 'the-next-token', 'previous-token': `${POD_TOKEN}\n` };
      expect((await restarted().state(signal)).adapters).toEqual([]);
    });

    it('stands beside the key that the pool names', async () => {
      secret = { llama: 'the-next-token', 'previous-llama': POD_TOKEN, 'previous-token': 'of another pool' };
      expect((await restarted(pool('llama')).state(signal)).adapters).toEqual([]);
    });

    it('helps also where it is added after a refusal', async () => {
      secret = { token: 'the-next-token' };
      const clock = new FakeClock();
      const client = restarted(pool(), clock);
      await expect(client.state(signal)).rejects.toMatchObject({ code: 'unauthenticated' });
      secret = { ...secret, 'previous-token': POD_TOKEN };
      await clock.advance(1_000);
      expect((await client.state(signal)).adapters).toEqual([]);
    });

    it('is not shown to pods that take the new one', async () => {
      secret = { token: POD_TOKEN, 'previous-token': 'an-old-token' };
      await restarted().state(signal);
      expect(shown).toEqual([`Bearer ${POD_TOKEN}`]);
    });
  });

  it('that is wrong is not asked for with every call', async () => {
    tokens = ['wrong'];
    for (let call = 0; call < 5; call += 1) {
      await expect(client.state(signal)).rejects.toMatchObject({ code: 'unauthenticated' });
    }
    expect(reads).toBe(1);
  });
});
