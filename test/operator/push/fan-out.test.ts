import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { LorikeetError } from '../../../server/contract/errors.ts';
import { FakePod } from '../../support/pod/fake-pod.ts';
import { refusal } from '../../support/pod/fault.ts';
import { bigAdapter } from './adapters.ts';
import { put, type Rig, startRig, until } from './harness.ts';

let rig: Rig;
beforeEach(async () => {
  rig = await startRig();
});
afterEach(() => rig.close());

const podsStaged = () => rig.publisher.pods.map(({ staged }) => staged);

describe('pods that misbehave', () => {
  it('one that hangs is dropped and delays the others by the stall limit at most', async () => {
    rig.publisher.pods.push(
      new FakePod({ name: 'pod-c', fault: { kind: 'hang' } }),
      new FakePod({ name: 'pod-d', fault: { kind: 'hang', afterBytes: 1 } }),
    );
    const startedAt = performance.now();
    const { status, body } = await put(rig, bigAdapter());
    expect([
      status,
      body.pods.map(({ name, state }: { name: string; state: string }) => `${name} ${state}`),
    ]).toEqual([202, ['pod-a active', 'pod-b active', 'pod-c failed', 'pod-d failed']]);
    expect(performance.now() - startedAt).toBeLessThan(6_000);
    expect(rig.publisher.publications[0]?.staged.map(({ error }) => error?.code ?? null)).toEqual([
      null,
      null,
      'pod_failed',
      'pod_failed',
    ]);
  });

  it('one that takes all and never answers is dropped soon after the first has answered', async () => {
    rig.publisher.pods.push(new FakePod({ name: 'pod-c', fault: { kind: 'hang', afterBytes: Infinity } }));
    const startedAt = performance.now();
    const { status } = await put(rig, bigAdapter());
    expect(status).toBe(202);
    expect(performance.now() - startedAt).toBeLessThan(6_000);
    expect(rig.publisher.publications[0]?.staged.map(({ ok }) => ok)).toEqual([true, true, false]);
  });

  it('one that is only slow is waited for, and the trainer slows down with it', async () => {
    const slow = new FakePod({ name: 'pod-c', fault: { kind: 'slow', msPerBlock: 30 } });
    rig.publisher.pods.push(slow);
    const pushing = put(rig, bigAdapter());
    await until(() => slow.receivedBytes > 0);
    await new Promise((resolve) => setTimeout(resolve, 100));
    const aheadBytes = (rig.publisher.pods[0]?.receivedBytes ?? 0) - slow.receivedBytes;
    expect(aheadBytes).toBeLessThan(1_000_000);
    expect([(await pushing).status, podsStaged().map(({ length }) => length)]).toEqual([200, [1, 1, 1]]);
  });

  it('one that fails, refuses or receives other bytes is one outcome among others', async () => {
    rig.publisher.pods.push(
      new FakePod({ name: 'pod-c', fault: { kind: 'reset', afterBytes: 70_000 } }),
      new FakePod({ name: 'pod-d', fault: refusal('no_capacity') }),
      new FakePod({ name: 'pod-e', fault: { kind: 'lie' } }),
    );
    expect((await put(rig, bigAdapter())).status).toBe(202);
    expect(rig.publisher.publications[0]?.staged.map(({ error }) => error?.code ?? 'ok')).toEqual([
      'ok',
      'ok',
      'pod_failed',
      'no_capacity',
      'pod_failed',
    ]);
  });

  it('all that refuse: the trainer hears the refusal of the content first', async () => {
    rig.publisher.pods = [
      new FakePod({ name: 'pod-a', fault: refusal('no_capacity') }),
      new FakePod({
        name: 'pod-b',
        fault: { kind: 'refuse', error: new LorikeetError('non_finite', 'NaN', { field: 'x' }) },
      }),
    ];
    const { status, body } = await put(rig, bigAdapter());
    expect([status, body.error]).toEqual([422, { code: 'non_finite', message: 'NaN', field: 'x' }]);
    expect([rig.publisher.publications, rig.spool.list(), rig.spool.usedBytes]).toEqual([[], [], 0]);
  });

  it('all that need longer than the trainer waits: 504, and nothing is published', async () => {
    const hang = { kind: 'hang', afterBytes: Number.POSITIVE_INFINITY } as const;
    rig.publisher.pods = ['pod-a', 'pod-b'].map((name) => new FakePod({ name, fault: hang }));
    const { status, headers, body } = await put(rig, bigAdapter(), { query: '?timeout=1ms' });
    expect([status, headers['retry-after'], body.error]).toEqual([
      504,
      '1',
      {
        code: 'timeout',
        message: 'No pod took the revision in time',
        actual: ['pod-a', 'pod-b'].map((name) => ({ name, error: 'The pod did not answer in time' })),
      },
    ]);
    expect(rig.publisher.publications).toEqual([]);
  });

  it('some too slow for the trainer, the others gone: 504, for another try may do', async () => {
    rig.publisher.pods = [
      new FakePod({ name: 'pod-a', fault: { kind: 'reset', afterBytes: 70_000 } }),
      new FakePod({ name: 'pod-b', fault: { kind: 'hang', afterBytes: Number.POSITIVE_INFINITY } }),
    ];
    const { status, body } = await put(rig, bigAdapter(), { query: '?timeout=1ms' });
    expect([status, body.error.code]).toEqual([504, 'timeout']);
  });

  it('all that hang: 502 while the trainer is still sending', async () => {
    rig.publisher.pods = [new FakePod({ name: 'pod-a', fault: { kind: 'hang' } })];
    const { status, body } = await put(rig, bigAdapter());
    expect([status, body.error.code, body.error.actual]).toEqual([
      502,
      'pod_failed',
      [{ name: 'pod-a', error: 'The pod took no byte for 1200 ms' }],
    ]);
  });
});
