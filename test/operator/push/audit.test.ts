import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { LorikeetError } from '../../../server/contract/errors.ts';
import { digestOf, goodAdapter } from '../../support/adapter-files.ts';
import { FakePod } from '../../support/pod/fake-pod.ts';
import { configHeader } from './adapters.ts';
import { TOKENS } from './fake-reviews.ts';
import { put, type Rig, startRig, until } from './harness.ts';
import { PATH, RawClient } from './raw-client.ts';

const WHO = { by: 'system:serviceaccount:team-a:trainer', namespace: 'team-a', adapter: 'sql' };
const FIELDS = [
  ...['action', 'by', 'namespace', 'adapter', 'digest', 'step', 'bytes', 'outcome', 'pods', 'podsTotal'],
];
const files = goodAdapter();
const bytes = files.tensors.length;

let rig: Rig;
beforeEach(async () => {
  rig = await startRig();
});
afterEach(() => rig.close());

const audited = () => rig.logs.filter(({ message }) => message === 'audit');
/** The one line, by its fixed fields. */
function line(): Record<string, unknown> {
  const lines = audited();
  expect(lines).toHaveLength(1);
  expect(lines[0]?.level).toBe('info');
  const fields = lines[0]?.fields as Record<string, unknown>;
  return Object.fromEntries(FIELDS.map((name) => [name, fields[name]]));
}

const rollBack = () =>
  fetch(`http://127.0.0.1:${rig.port}${PATH.replace('revisions', 'rollback')}`, {
    method: 'POST',
    headers: { authorization: `Bearer ${TOKENS.trainer}`, 'content-type': 'application/json' },
    body: '{}',
  });

describe('one line says who changed what, and where it went to', () => {
  it('of a push', async () => {
    rig.publisher.pods = [new FakePod({ name: 'pod-a' }), new FakePod({ name: 'pod-b' })];
    await put(rig, files, { headers: { 'x-lora-step': '3' } });
    expect(line()).toEqual({
      ...{ action: 'push', ...WHO, digest: digestOf(files), step: 3, bytes, outcome: 'ok' },
      ...{ pods: ['pod-a active', 'pod-b active'], podsTotal: 2 },
    });
  });

  it('of one that is there already', async () => {
    await put(rig, files);
    rig.logs.length = 0;
    await put(rig, files);
    expect(line()).toMatchObject({ action: 'push', digest: digestOf(files), outcome: 'noop' });
  });

  it('of a rollback', async () => {
    for (const seed of [1, 2]) await put(rig, goodAdapter(seed), { headers: { 'x-lora-step': `${seed}` } });
    rig.logs.length = 0;
    expect((await rollBack()).status).toBe(200);
    const first = goodAdapter(1);
    expect(line()).toEqual({
      ...{ action: 'rollback', ...WHO, digest: digestOf(first), step: 1, outcome: 'ok' },
      ...{ bytes: first.tensors.length, pods: ['pod-a active', 'pod-b active'], podsTotal: 2 },
    });
  });

  it.each<[string, () => Promise<unknown>, object]>([
    [
      'a push that is refused',
      () => {
        rig.publisher.error = new LorikeetError('no_pods', 'no pods');
        return put(rig, files, { headers: { 'x-lora-step': '3' } });
      },
      { action: 'push', step: 3, bytes, outcome: 'no_pods' },
    ],
    [
      'a push that fails by a bug',
      () => {
        rig.publisher.publish = () => Promise.reject(new TypeError('undefined is not a function'));
        return put(rig, files);
      },
      { action: 'push', step: null, bytes, outcome: 'internal' },
    ],
    ['a rollback that is refused', rollBack, { action: 'rollback', step: null, bytes: 2 }],
    [
      'a push whose client goes',
      async () => {
        const client = new RawClient(rig.port);
        client.head({ 'content-length': bytes, 'x-lora-config': configHeader(files.config) });
        await new Promise((flushed) => client.socket.write(files.tensors.subarray(0, 1_000), flushed));
        client.close();
        await until(() => audited().length > 0);
      },
      { action: 'push', step: null, bytes, outcome: 'client_gone' },
    ],
  ])('of %s', async (_name, end, expected) => {
    await end();
    expect(line()).toMatchObject({ ...WHO, digest: null, pods: [], podsTotal: 0, ...expected });
  });
});

it('names the first 64 of many pods', async () => {
  rig.publisher.pods = Array.from({ length: 70 }, (_, index) => new FakePod({ name: `pod-${index}` }));
  await put(rig, files);
  const { pods, podsTotal } = line() as { pods: string[]; podsTotal: number };
  expect([pods.length, podsTotal]).toEqual([64, 70]);
});

it('a stranger, and a list, are not written down so', async () => {
  await put(rig, files, { headers: { authorization: `Bearer ${TOKENS.expired}` } });
  await put(rig, files, { headers: { authorization: `Bearer ${TOKENS.otherNamespace}` } });
  await fetch(`http://127.0.0.1:${rig.port}${PATH}`, {
    headers: { authorization: `Bearer ${TOKENS.trainer}` },
  });
  expect(audited()).toEqual([]);
});

it('what a caller announces is repeated only where it is a number', async () => {
  await put(rig, files, { headers: { 'x-lora-step': 'canary-step' } });
  expect(line()).toMatchObject({ step: null });
  expect(JSON.stringify(rig.logs)).not.toContain('canary-step');
});
