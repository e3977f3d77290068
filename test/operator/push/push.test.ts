import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { revisionOf } from '../../../operator/adapter/desired.ts';
import type { RevisionState } from '../../../server/contract/adapter-api.ts';
import { LorikeetError } from '../../../server/contract/errors.ts';
import { digestOf, goodAdapter, sha256, withMetadata } from '../../support/adapter-files.ts';
import type { FakePod } from '../../support/pod/fake-pod.ts';
import { adapterState, held, podState } from '../../support/pod/state.ts';
import { bigAdapter, configHeader } from './adapters.ts';
import { TOKENS } from './fake-reviews.ts';
import { put, type Rig, startRig, until } from './harness.ts';
import { PATH, RawClient } from './raw-client.ts';

let rig: Rig;
beforeEach(async () => {
  rig = await startRig();
});
afterEach(() => rig.close());

const podsStaged = () => rig.publisher.pods.map(({ staged }) => staged);

describe('a push', () => {
  it('reaches every pod, the spool and the publisher, and answers with timings', async () => {
    const files = goodAdapter();
    const digest = digestOf(files);
    const { status, body } = await put(rig, files, { headers: { 'x-lora-step': '42' } });
    expect(status).toBe(200);
    expect(body).toMatchObject({
      revision: digest,
      step: 42,
      bytes: files.tensors.length,
      noop: false,
      pods: [
        { name: 'pod-a', state: 'active' },
        { name: 'pod-b', state: 'active' },
      ],
      swap: { durationMs: 3, skewMs: 1 },
    });
    expect(Object.keys(body.timings)).toEqual(['authMs', 'receiveMs', 'stageMs', 'activateMs', 'totalMs']);
    expect(podsStaged()).toEqual([[digest], [digest]]);
    expect(rig.publisher.pods[0]?.uploads).toEqual([
      {
        name: 'sql-served',
        config: JSON.parse(files.config.toString()),
        step: 42,
        size: files.tensors.length,
        allow: [],
      },
    ]);
    expect(rig.spool.open(digest)).toMatchObject({ step: 42, size: files.tensors.length });
    expect(rig.publisher.publications[0]).toMatchObject({
      namespace: 'team-a',
      name: 'sql',
      rank: 8,
      targetModules: ['q_proj', 'v_proj'],
      pushedBy: 'system:serviceaccount:team-a:trainer',
      wait: 'active',
    });
    expect(rig.inFlight).toEqual([0, 0]);
  });

  it('may be chunked, in chunks of any size', async () => {
    const files = goodAdapter();
    for (const chunkBytes of [1_000, 65_536, files.tensors.length]) {
      const client = new RawClient(rig.port);
      client.head({ 'transfer-encoding': 'chunked', 'x-lora-config': configHeader(files.config) });
      for (let at = 0; at < files.tensors.length; at += chunkBytes) {
        const chunk = files.tensors.subarray(at, at + chunkBytes);
        client.send(`${chunk.length.toString(16)}\r\n`);
        client.send(chunk);
        client.send('\r\n');
      }
      client.send('0\r\n\r\n');
      const reply = await client.reply();
      expect([reply?.status, reply?.body.revision]).toEqual([200, digestOf(files)]);
      client.close();
    }
  });

  it('costs the pods no more blocks when its chunks are tiny', async () => {
    const files = goodAdapter();
    const client = new RawClient(rig.port);
    client.head({ 'transfer-encoding': 'chunked', 'x-lora-config': configHeader(files.config) });
    const parts: Buffer[] = [];
    for (let at = 0; at < files.tensors.length; at += 6) {
      const chunk = files.tensors.subarray(at, at + 6);
      parts.push(Buffer.from(`${chunk.length}\r\n`), chunk, Buffer.from('\r\n'));
    }
    client.send(Buffer.concat([...parts, Buffer.from('0\r\n\r\n')]));
    expect((await client.reply())?.status).toBe(200);
    expect(rig.publisher.pods[0]?.blocks).toBeLessThan(10);
    client.close();
  });

  it('may bring its config in the file, in a header that wins, or with an earlier push', async () => {
    const files = goodAdapter();
    const inFile = withMetadata(files.tensors, { adapter_config: files.config.toString() });
    const none = { 'x-lora-config': '' };
    const missing = await put(rig, { ...files, tensors: files.tensors }, { headers: none }).catch(() => null);
    expect(missing?.body.error.code).toBe('malformed_config');
    const client = new RawClient(rig.port);
    client.head({ 'content-length': files.tensors.length });
    client.send(files.tensors);
    expect((await client.reply())?.body.error).toMatchObject({
      code: 'missing_config',
      field: 'x-lora-config',
    });

    const fromFile = new RawClient(rig.port);
    fromFile.head({ 'content-length': inFile.length });
    fromFile.send(inFile);
    expect((await fromFile.reply())?.body.revision).toBe(digestOf({ tensors: inFile, config: files.config }));

    const other = goodAdapter(7, { lora_alpha: 99 });
    const won = await put(rig, { tensors: inFile, config: other.config });
    expect(won.body.revision).toBe(digestOf({ tensors: inFile, config: other.config }));

    const remembered = new RawClient(rig.port);
    remembered.head({ 'content-length': files.tensors.length });
    remembered.send(files.tensors);
    expect((await remembered.reply())?.body.revision).toBe(
      digestOf({ tensors: files.tensors, config: other.config }),
    );
  });

  it('of what is current already is a no-op, even with an old step and an old If-Match', async () => {
    const files = goodAdapter();
    await put(rig, files, { headers: { 'x-lora-step': '42' } });
    const again = await put(rig, files, {
      headers: { 'x-lora-step': '1', 'if-match': `"sha256:${'0'.repeat(64)}"` },
    });
    expect([again.status, again.body.noop, again.body.step]).toEqual([200, true, 42]);
    expect(rig.publisher.publications).toHaveLength(1);
    expect(rig.counted).toEqual(['ok', 'noop']);
  });

  it('passes its fences on: If-Match, step, wait, timeout and checks to waive', async () => {
    const [a, b] = [goodAdapter(1), goodAdapter(2)];
    expect((await put(rig, a, { headers: { 'if-match': '*' } })).body.error.code).toBe('precondition_failed');
    await put(rig, a, { headers: { 'x-lora-step': '5' } });
    const stale = await put(rig, b, { headers: { 'x-lora-step': '5' } });
    expect([stale.status, stale.body.error]).toEqual([
      409,
      { code: 'step_not_newer', message: 'The step is not newer', expected: 6, actual: 5 },
    ]);
    const other = await put(rig, b, { headers: { 'if-match': `"${digestOf(b)}"` } });
    expect([other.status, other.body.error.code]).toEqual([412, 'precondition_failed']);
    const headers = { 'if-match': `"${digestOf(a)}"`, 'x-lora-allow': 'zero_effect' };
    const right = await put(rig, b, { headers, query: '?wait=staged&timeout=5s' });
    expect(right.status).toBe(200);
    expect(rig.publisher.publications.at(-1)).toMatchObject({ wait: 'staged', ifMatch: digestOf(a) });
    expect(rig.publisher.pods[0]?.uploads.at(-1)?.allow).toEqual(['zero_effect']);
  });

  it('is checked against Content-Digest and spec.verify before any pod has the whole', async () => {
    const files = goodAdapter();
    const right = Buffer.from(sha256(files.tensors), 'hex').toString('base64');
    const wrong = Buffer.alloc(32).toString('base64');
    const refused = await put(rig, files, { headers: { 'content-digest': `sha-256=:${wrong}:` } });
    expect([refused.status, refused.body.error.code]).toEqual([400, 'digest_mismatch']);
    rig.publisher.verify = { sha256: '0'.repeat(64) };
    expect((await put(rig, files)).body.error).toMatchObject({
      code: 'verification_failed',
      field: 'spec.verify.sha256',
    });
    rig.publisher.verify = { rank: 16 };
    expect((await put(rig, files)).body.error).toMatchObject({
      code: 'verification_failed',
      expected: 16,
      actual: 8,
    });
    expect(podsStaged()).toEqual([[], []]);
    expect(rig.spool.list()).toEqual([]);
    rig.publisher.verify = undefined;
    const digests = `sha-512=:AAAA:, sha-256=:${right}:`;
    expect((await put(rig, files, { headers: { 'content-digest': digests } })).status).toBe(200);
  });

  it('succeeds without a copy when the spool is full', async () => {
    const full = await startRig();
    full.spool.begin = () =>
      ({ write: () => Promise.reject(new Error('full')), abort: async () => undefined }) as never;
    expect((await put(full, goodAdapter())).status).toBe(200);
    expect(full.logs.map(({ message }) => message)).toContain('the spool keeps no copy of a push');
    await full.close();
  });
});

describe('a push cut short', () => {
  it('at any 64 KiB changes nothing, and the next one succeeds', { timeout: 20_000 }, async () => {
    const files = bigAdapter(['q_proj', 'v_proj']);
    const { length } = files.tensors;
    const cuts = [1, 8, 100, length - 1];
    for (let at = 65_536; at < length; at += 65_536) cuts.push(at);
    let done = 0;
    for (const at of cuts) {
      const client = new RawClient(rig.port);
      client.head({ 'content-length': length, 'x-lora-config': configHeader(files.config) });
      await new Promise((flushed) => client.socket.write(files.tensors.subarray(0, at), flushed));
      client.close();
      done += 1;
      await until(() => rig.counted.length === done);
    }
    expect(rig.inFlight).toEqual([0, 0]);
    expect(new Set(rig.counted)).toEqual(new Set(['client_gone']));
    expect(podsStaged()).toEqual([[], []]);
    expect([rig.publisher.publications, rig.spool.list(), rig.spool.usedBytes]).toEqual([[], [], 0]);
    const [pod] = rig.publisher.pods;
    expect(pod?.cut).toBe(pod?.uploads.length);
    expect((await put(rig, files)).status).toBe(200);
  });

  it.each([
    ['a byte too few', (tensors: Buffer) => tensors.subarray(0, -1)],
    ['a byte too many', (tensors: Buffer) => Buffer.concat([tensors, Buffer.alloc(1)])],
  ])('or long is malformed: %s', async (_, spoil) => {
    const files = goodAdapter();
    const body = spoil(files.tensors);
    const declared = await put(rig, { ...files, tensors: body });
    expect([declared.status, declared.body.error.code]).toEqual([400, 'malformed_safetensors']);
    const client = new RawClient(rig.port);
    client.head({ 'transfer-encoding': 'chunked', 'x-lora-config': configHeader(files.config) });
    client.send(`${body.length.toString(16)}\r\n`);
    client.send(body);
    client.send('\r\n0\r\n\r\n');
    const chunked = await client.reply();
    expect([chunked?.status, chunked?.body.error.code]).toEqual([400, 'malformed_safetensors']);
    expect(podsStaged()).toEqual([[], []]);
    expect(rig.spool.list()).toEqual([]);
  });

  it('after the last byte but before the reply is carried through, and its retry is a no-op', async () => {
    const files = goodAdapter();
    const { promise, resolve } = Promise.withResolvers<void>();
    rig.publisher.gate = promise;
    const client = new RawClient(rig.port);
    client.head({ 'content-length': files.tensors.length, 'x-lora-config': configHeader(files.config) });
    client.send(files.tensors);
    await until(() => rig.publisher.pods.every(({ staged }) => staged.length === 1));
    client.close();
    await new Promise((done) => setTimeout(done, 20));
    resolve();
    await until(() => rig.publisher.desired !== null);
    expect((await put(rig, files)).body.noop).toBe(true);
  });
});

describe('two pushes of one adapter', () => {
  it('take turns; of those that wait only the newest stays', async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    rig.publisher.gate = promise;
    const first = put(rig, goodAdapter(1));
    await until(() => rig.publisher.pods.every(({ staged }) => staged.length === 1));
    const second = put(rig, goodAdapter(2));
    await until(() => rig.inFlight[0] === 2);
    const third = put(rig, goodAdapter(3));
    const { status, body } = await second;
    expect([status, body.error.code]).toEqual([409, 'superseded']);
    expect(rig.publisher.pods[0]?.uploads).toHaveLength(1);
    resolve();
    expect((await first).body.revision).toBe(digestOf(goodAdapter(1)));
    expect((await third).body.revision).toBe(digestOf(goodAdapter(3)));
    expect(rig.publisher.desired?.digest).toBe(digestOf(goodAdapter(3)));
  });

  it('of those that wait the one of the later step stays, whichever came later', async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    rig.publisher.gate = promise;
    const first = put(rig, goodAdapter(1), { headers: { 'x-lora-step': '10' } });
    await until(() => rig.inFlight[0] === 1);
    const later = put(rig, goodAdapter(3), { headers: { 'x-lora-step': '12' } });
    await until(() => rig.inFlight[0] === 2);
    const { status, body } = await put(rig, goodAdapter(2), { headers: { 'x-lora-step': '11' } });
    expect([status, body.error.code]).toEqual([409, 'superseded']);
    resolve();
    expect((await first).status).toBe(200);
    expect((await later).body.step).toBe(12);
  });

  it('a waiting one whose client goes away gives its place up', async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    rig.publisher.gate = promise;
    const first = put(rig, goodAdapter(1));
    await until(() => rig.inFlight[0] === 1);
    const client = new RawClient(rig.port);
    client.head({ 'content-length': 1000, 'x-lora-config': configHeader(goodAdapter().config) });
    await until(() => rig.inFlight[0] === 2);
    client.close();
    await until(() => rig.inFlight[0] === 1);
    resolve();
    expect((await first).status).toBe(200);
    expect((await put(rig, goodAdapter(2))).status).toBe(200);
  });

  it('more than the operator takes at once are told to come back', async () => {
    const small = await startRig({ budget: { pushesMax: 1, bytesMax: 1_000_000 } });
    const { promise, resolve } = Promise.withResolvers<void>();
    small.publisher.gate = promise;
    const first = put(small, goodAdapter(1));
    await until(() => small.inFlight[0] === 1);
    const { status, headers, body } = await put(small, goodAdapter(2));
    expect([status, headers['retry-after'], body.error.code]).toEqual([429, '1', 'too_many_requests']);
    resolve();
    expect((await first).status).toBe(200);
    await small.close();
  });
});

describe('an operator that stops', () => {
  it('lets a push under way end', async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    rig.publisher.gate = promise;
    const pushed = put(rig, goodAdapter(1));
    await until(() => rig.publisher.pods.every(({ staged }) => staged.length === 1));
    const settled = rig.running.settled();
    rig.stopping.abort(new LorikeetError('not_leader', 'stopping'));
    resolve();
    await settled;
    expect((await pushed).status).toBe(200);
  });

  it('answers one whose body still comes, and one that waits, to come back', async () => {
    const { tensors, config } = goodAdapter(1);
    const slow = new RawClient(rig.port);
    slow.head({ 'content-length': tensors.length, 'x-lora-config': configHeader(config) });
    slow.send(tensors.subarray(0, 1_000));
    await until(() => rig.inFlight[0] === 1);
    const waiting = put(rig, goodAdapter(2));
    await until(() => rig.inFlight[0] === 2);
    rig.stopping.abort(new LorikeetError('not_leader', 'stopping'));
    const reply = await slow.reply();
    expect([reply?.status, reply?.headers['retry-after']]).toEqual([503, '1']);
    expect((await waiting).status).toBe(503);
    await rig.running.settled();
    slow.close();
  });
});

describe('the list of revisions', () => {
  it('says which pod holds what, the desired first', async () => {
    const [a, b] = rig.publisher.pods as [FakePod, FakePod];
    const shape = { bytes: 9, rank: 8, targetModules: [] };
    const old = (state: 'retired' | 'current') => held('sha256:old', state, { step: 1, bytes: 9 });
    const desired = held('sha256:new', 'current', { step: 2, bytes: 9 });
    const stateOf = (...revisions: RevisionState[]) =>
      podState({ adapters: [adapterState('sql-served', null, revisions)] });
    a.state = stateOf(old('retired'), desired);
    b.state = stateOf(old('current'));
    rig.publisher.desired = revisionOf({ digest: 'sha256:new', step: 2, ...shape }, '2026-11-30T00:00:00Z');
    rig.publisher.earlier = [revisionOf({ digest: 'sha256:old', step: 1, ...shape }, '2026-11-30T00:00:00Z')];
    const response = await fetch(`http://127.0.0.1:${rig.port}${PATH}`, {
      headers: { authorization: `Bearer ${TOKENS.trainer}` },
    });
    expect(await response.json()).toEqual({
      servedName: 'sql-served',
      desired: { digest: 'sha256:new', step: 2 },
      revisions: [
        {
          revision: 'sha256:new',
          step: 2,
          bytes: 9,
          rank: 8,
          desired: true,
          earlier: false,
          pods: [{ name: 'pod-a', state: 'current', tier: 'slot' }],
        },
        {
          revision: 'sha256:old',
          step: 1,
          bytes: 9,
          rank: 8,
          desired: false,
          earlier: true,
          pods: [
            { name: 'pod-a', state: 'retired', tier: 'slot' },
            { name: 'pod-b', state: 'current', tier: 'slot' },
          ],
        },
      ],
    });
  });
});
