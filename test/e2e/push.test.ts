import { createConnection } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { brokenAdapters } from '../support/broken-adapters.ts';
import { eventually } from '../support/eventually.ts';
import {
  type AdapterFiles,
  ask,
  fixtureAdapter,
  push,
  pushed,
  pushUrl,
  servingUrl,
  stream,
} from './client.ts';
import { goldenAnswer, goldenCases } from './golden.ts';
import { pushedAdapter } from './manifests.ts';
import type { SeenPod } from './objects.ts';
import { NAMESPACE, SYSTEM, World } from './world.ts';

/** A trainer pushes tensors over HTTP while clients ask, with two operators, on a real control plane. */

const QUESTION = 'List the name of all players from Lima.';
let world: World;
let token: string;
let nextStep = 10_000;

async function leader(): Promise<SeenPod> {
  const holder = await world.plane.kubectl([
    'get',
    'lease',
    'lorikeet',
    '-n',
    SYSTEM,
    '-o',
    'jsonpath={.spec.holderIdentity}',
  ]);
  const pod = (await world.operators()).find(
    ({ name, terminating }) => holder.includes(name) && !terminating,
  );
  if (!pod) throw new Error(`no operator pod holds the lease: ${holder}`);
  return pod;
}

async function urlOf(name: string): Promise<string> {
  return pushUrl((await leader()).ip, NAMESPACE, name);
}

async function liveAdapter(name: string): Promise<void> {
  await world.apply(pushedAdapter(name));
  await world.untilAdapter(name, 'observed', ({ conditions }) => conditions.Ready !== undefined);
}

function answerOf(style: string): Promise<string> {
  return goldenAnswer(style, QUESTION);
}

beforeAll(async () => {
  world = await World.withPool({ operators: 2 });
  token = await world.tokenFor('trainer', 'lorikeet-push');
  await world.allowPush('trainer');
}, 150_000);

afterAll(async () => {
  await world?.stop();
}, 60_000);

describe('a push', () => {
  it('is visible on every pod when it is answered, and idempotent', async () => {
    await liveAdapter('live');
    const pirate = await fixtureAdapter('pirate');
    const reply = await pushed(await urlOf('live'), pirate, { token, step: 1 });
    expect(reply).toMatchObject({ step: 1, bytes: pirate.tensors.length });
    expect(reply.pods.map(({ state }) => state)).toEqual(['active', 'active']);
    for (const { ip } of await world.servers()) {
      const { text, revision } = await ask(ip, 'live', QUESTION);
      expect({ text, revision }).toEqual({ text: await answerOf('pirate'), revision: reply.revision });
    }
    const again = await pushed(await urlOf('live'), pirate, { token, step: 1 });
    expect(again.revision).toBe(reply.revision);
    const seen = await world.untilReady('live', reply.revision);
    expect(seen.step).toBe(1);
  });

  it('takes only a newer step, and only over the revision that was expected', async () => {
    const json = await fixtureAdapter('json');
    const url = await urlOf('live');
    const before = await ask((await world.servers())[0]?.ip ?? '', 'live', QUESTION);
    expect((await push(url, json, { token, step: 1 })).status).toBe(409);
    const other = `"sha256:${'0'.repeat(64)}"`;
    expect((await push(url, json, { token, step: 2, ifMatch: other })).status).toBe(412);
    const after = await ask((await world.servers())[0]?.ip ?? '', 'live', QUESTION);
    expect(after).toEqual(before);
    const swapped = await push(url, json, { token, step: 2, ifMatch: `"${before.revision}"` });
    expect(swapped.status).toBe(200);
  });

  it.each([
    ['rank-not-config', 422],
    ['shape-in', 422],
    ['nan', 422],
    ['unknown-module', 422],
    ['file-truncated', 400],
    ['config-dora', 422],
  ])('of a bad adapter is refused, typed, and nothing changes: %s', async (fault, status) => {
    const bad = brokenAdapters().find(({ name }) => name === fault);
    if (!bad) throw new Error(`no broken adapter ${fault}`);
    const [pod] = await world.servers();
    const before = await ask(pod?.ip ?? '', 'live', QUESTION);
    const response = await push(await urlOf('live'), bad, { token });
    const body = await response.text();
    expect(response.status, body).toBe(status);
    const { error } = z.object({ error: z.object({ code: z.string() }) }).parse(JSON.parse(body));
    expect(error.code).toMatch(/^[a-z_]+$/);
    for (const word of bad.say) expect(body).toContain(word);
    expect(await ask(pod?.ip ?? '', 'live', QUESTION)).toEqual(before);
  });

  it('is forwarded by the operator that does not lead', async () => {
    const lead = await leader();
    const other = (await world.operators()).find(({ uid }) => uid !== lead.uid);
    const url = pushUrl(other?.ip ?? '', NAMESPACE, 'live');
    const reply = await pushed(url, await fixtureAdapter('pirate'), { token, step: 3 });
    expect(reply.pods.map(({ state }) => state)).toEqual(['active', 'active']);
  });

  it('is undone by a rollback: every pod answers as before', async () => {
    const url = (await urlOf('live')).replace(/revisions$/, 'rollback');
    const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' };
    const response = await fetch(url, { method: 'POST', headers, body: '{"to": 2}' });
    expect(response.status, await response.clone().text()).toBe(200);
    const { revision } = z.object({ revision: z.string() }).parse(await response.json());
    const answer = { text: await answerOf('json'), revision };
    for (const { ip } of await world.servers()) expect(await ask(ip, 'live', QUESTION)).toMatchObject(answer);
  });

  it('has one trace id in the logs of the leader and of every pod, whichever operator was asked', async () => {
    const lead = await leader();
    const other = (await world.operators()).find(({ uid }) => uid !== lead.uid);
    const traceId = '4bf92f3577b34da6a3ce929d0e0e4736';
    const url = pushUrl(other?.ip ?? '', NAMESPACE, 'live');
    const traceparent = `00-${traceId}-00f067aa0ba902b7-01`;
    const files = await fixtureAdapter('pirate');
    const response = await push(url, files, { token, step: 4, traceparent });
    expect(response.status).toBe(200);
    expect(response.headers.get('x-request-id')).toBe(traceId);
    const messages = async (namespace: string, pod: string) => {
      const lines = (await world.node.logs(namespace, pod)).split('\n');
      return lines
        .filter((line) => line.includes(`"trace_id":"${traceId}"`))
        .map((line) => JSON.parse(line).msg);
    };
    expect(await messages(SYSTEM, lead.name)).toContain('audit');
    for (const { name } of await world.servers())
      expect(await messages(NAMESPACE, name)).toEqual(expect.arrayContaining(['activated']));
  });

  it('without the right token is refused before a byte of the body is read', async () => {
    const stranger = await world.tokenFor('stranger', 'lorikeet-push');
    await world.plane.kubectl(['create', 'namespace', 'elsewhere']);
    const foreign = await world.tokenFor('trainer', 'lorikeet-push', 'elsewhere');
    const wrongAudience = await world.tokenFor('trainer', 'https://kubernetes.default.svc');
    expect(await statusBeforeBody(null)).toBe(401);
    expect(await statusBeforeBody('not-a-token')).toBe(401);
    expect(await statusBeforeBody(wrongAudience)).toBe(401);
    expect(await statusBeforeBody(stranger)).toBe(403);
    expect(await statusBeforeBody(foreign)).toBe(403);
  });
});

/** Sends the head of a push and no body; the status that comes back nevertheless. */
async function statusBeforeBody(bearer: string | null): Promise<number> {
  const url = new URL(await urlOf('live'));
  const socket = createConnection({ host: url.hostname, port: Number(url.port) });
  const head = [
    `PUT ${url.pathname} HTTP/1.1`,
    `Host: ${url.host}`,
    'Content-Type: application/octet-stream',
    'Content-Length: 1000000',
    ...(bearer === null ? [] : [`Authorization: Bearer ${bearer}`]),
  ];
  socket.write(`${head.join('\r\n')}\r\n\r\n`);
  const reply = await new Promise<string>((resolve, reject) => {
    socket.once('data', (data) => resolve(data.toString()));
    socket.once('error', reject);
    socket.setTimeout(5_000, () => reject(new Error('no reply to the head of the request')));
  }).finally(() => socket.destroy());
  return Number(reply.split(' ')[1]);
}

/** Twelve revisions whose answers PEFT gave; neighbours differ. The last three share tensors, not configs. */
async function twelveRevisions(): Promise<{ files: AdapterFiles; golden: string }[]> {
  const names = [
    'sql',
    'pirate',
    'json',
    'some-layers',
    'rank-24',
    'rank-1-f16',
    'rank-pattern',
    'regex-targets',
    'rank-64-bf16',
  ];
  const revisions = await Promise.all(
    names.map(async (name) => ({ files: await fixtureAdapter(name), golden: name })),
  );
  for (const name of ['sql', 'pirate', 'json']) {
    const { tensors, config } = await fixtureAdapter(name);
    const changed = { ...JSON.parse(config.toString()), lora_dropout: 0.125 };
    revisions.push({ files: { tensors, config: Buffer.from(JSON.stringify(changed)) }, golden: name });
  }
  return revisions;
}

const Completion = z.object({
  choices: z.array(z.object({ token_ids: z.array(z.number()) })).min(1),
  lora: z.object({ revision: z.string() }),
});

async function complete(ip: string, prompt: number[]): Promise<{ revision: string; tokens: number[] }> {
  const body = { model: 'live', prompt, max_tokens: 24, temperature: 0, return_token_ids: true };
  const response = await fetch(`${servingUrl(ip)}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  const text = await response.text();
  if (response.status !== 200) throw new Error(`${response.status} ${text}`);
  const { choices, lora } = Completion.parse(JSON.parse(text));
  return { revision: lora.revision, tokens: choices[0]?.token_ids ?? [] };
}

describe('while revisions change', () => {
  it('a stream that runs across a swap never mixes them', async () => {
    const url = await urlOf('live');
    const first = await pushed(url, await fixtureAdapter('pirate'), { token, step: 10 });
    const [pod] = await world.servers();
    const ip = pod?.ip ?? '';
    const long = { ignore_eos: true, max_tokens: 1_200 };
    const undisturbed = await stream(ip, 'live', QUESTION, long).done;
    const running = stream(ip, 'live', QUESTION, long);
    await running.started;
    const second = await pushed(url, await fixtureAdapter('json'), { token, step: 11 });
    expect((await ask(ip, 'live', QUESTION)).revision).toBe(second.revision);
    const crossed = await running.done;
    expect(crossed.revision).toBe(first.revision);
    expect(crossed.text).toBe(undisturbed.text);
  });

  it('2,000 requests over 12 revisions each get the answer of the revision that they name', async () => {
    const revisions = await twelveRevisions();
    const url = await urlOf('live');
    const expected = new Map<string, { prompt: number[]; sure: number[]; whole: boolean }[]>();
    const pods = await world.servers();
    let asked = 0;
    let wrong = 0;
    const seen = new Set<string>();
    let pushing = true;
    const mismatches: string[] = [];
    const known = async (name: string) => (await goldenCases(name)).slice(0, 4);
    const cases = new Map(
      await Promise.all(revisions.map(async ({ golden }) => [golden, await known(golden)] as const)),
    );
    const first = revisions[0];
    if (!first) throw new Error('no revisions');
    const start = await pushed(url, first.files, { token, step: 100 });
    expected.set(start.revision, cases.get(first.golden) ?? []);

    const pushAll = async () => {
      let step = 100;
      while (asked < 1_900) {
        for (const { files, golden } of revisions) {
          step += 1;
          const reply = await pushed(url, files, { token, step });
          expected.set(reply.revision, cases.get(golden) ?? []);
        }
      }
      pushing = false;
    };
    const results: { index: number; revision: string; tokens: number[] }[] = [];
    const askMany = async (worker: number) => {
      while (asked < 2_000 || pushing) {
        const index = asked++ % 4;
        const prompt = cases.get('sql')?.[index]?.prompt ?? [];
        const pod = pods[(asked + worker) % pods.length];
        results.push({ index, ...(await complete(pod?.ip ?? '', prompt)) });
      }
    };
    await Promise.all([pushAll(), ...Array.from({ length: 8 }, (_, worker) => askMany(worker))]);
    for (const { index, revision, tokens } of results) {
      const golden = expected.get(revision)?.[index];
      seen.add(revision);
      const head = golden === undefined ? null : tokens.slice(0, golden.sure.length);
      const exact = golden !== undefined && JSON.stringify(head) === JSON.stringify(golden.sure);
      const ended = golden === undefined || !golden.whole || tokens.length === golden.sure.length;
      if (!exact || !ended) {
        wrong += 1;
        if (mismatches.length < 3) mismatches.push(`${revision} prompt ${index}: ${tokens}`);
      }
    }
    expect(mismatches).toEqual([]);
    expect(wrong).toBe(0);
    expect(results.length).toBeGreaterThanOrEqual(2_000);
    expect(seen.size).toBe(12);
  }, 180_000);
});

describe('operators', () => {
  // A push to two pods takes some 25 ms here: before, while and after the pods are told.
  it.each([0, 12, 24])(
    'one of two leads; when it is killed %d ms into a push the other one converges',
    async (ms) => {
      const lead = await leader();
      const sql = await fixtureAdapter('sql');
      nextStep += 10;
      const step = nextStep;
      const swap = push(pushUrl(lead.ip, NAMESPACE, 'live'), sql, { token, step }).then(
        (response) => response.status,
        () => 'cut',
      );
      await sleep(ms);
      await world.node.removePodAbruptly(SYSTEM, lead.name);
      await swap;
      const next = await eventually(
        'another operator leads',
        { timeoutMs: 60_000, everyMs: 200 },
        async () => {
          const now = await leader();
          return now.uid !== lead.uid && now.ready ? now : undefined;
        },
      );
      const pods = await world.servers();
      await eventually('every pod has the same revision', { timeoutMs: 30_000 }, async () => {
        const answers = await Promise.all(pods.map(({ ip }) => ask(ip, 'live', QUESTION)));
        return new Set(answers.map(({ revision }) => revision)).size === 1 ? true : undefined;
      });
      const json = await fixtureAdapter('json');
      const reply = await eventually('the new leader takes pushes', { timeoutMs: 30_000 }, () =>
        pushed(pushUrl(next.ip, NAMESPACE, 'live'), json, { token, step: step + 1 }),
      );
      for (const { ip } of pods) expect((await ask(ip, 'live', QUESTION)).revision).toBe(reply.revision);
      await world.untilReady('live', reply.revision);
      await world.untilPodsReady(2, 2);
    },
  );

  it('bring a pushed revision to a new pod though the operator that took it is gone', async () => {
    const before = await world.adapter('live');
    await world.applyServers({ servers: 3 });
    const pods = await eventually('three pods are Ready', { timeoutMs: 60_000 }, async () => {
      const ready = (await world.servers()).filter((pod) => pod.ready);
      return ready.length === 3 ? ready : undefined;
    });
    for (const { ip } of pods)
      expect((await ask(ip, 'live', QUESTION)).revision).toBe(before.currentRevision);
  }, 90_000);
});
