import { describe, expect, it } from 'vitest';
import { placementOf } from '../../../operator/placement/placement.ts';
import { capacityVerdict, poolVerdict, usageOf } from '../../../operator/pool/describe.ts';
import { FakePod } from '../../support/pod/fake-pod.ts';
import { serverPool } from '../adapter/objects.ts';

describe('the capacity of a pool', () => {
  const idle = new FakePod({ name: 'a' });
  it.each([
    ['nobody has reported', [new FakePod({ state: null })], 'Unknown', 'Pending'],
    ['room everywhere', [idle], 'False', 'Sufficient'],
    ['all slots of one pod taken', [idle, new FakePod({ used: { slots: 8 } })], 'True', 'SlotsFull'],
    [
      'host memory of one pod nearly full',
      [idle, new FakePod({ used: { hostBytes: 901 } })],
      'True',
      'HostMemoryFull',
    ],
    ['both', [new FakePod({ used: { slots: 8, hostBytes: 901 } })], 'True', 'HostMemoryFull'],
    [
      'a full pod that is silent',
      [idle, new FakePod({ used: { slots: 8 }, reachable: false })],
      'False',
      'Sufficient',
    ],
  ])('%s → %s %s', (_name, pods, status, reason) => {
    expect(capacityVerdict(pods, [])).toMatchObject({ status, reason });
  });

  it('names what does not fit before anything else', () => {
    const shortages = ['sql', 'chat'].map((name) => ({ name, why: 'Placed on 0 of 1 pods.' }));
    expect(capacityVerdict([new FakePod({ used: { hostBytes: 901 } })], shortages)).toEqual({
      status: 'True',
      reason: 'AdaptersDoNotFit',
      message: 'sql, 1 more do not fit: Placed on 0 of 1 pods.',
    });
  });

  it('is the sum over pods that answer', () => {
    const used = { slots: 3, hostBytes: 10 };
    const pods = [
      new FakePod({ used }),
      new FakePod({ used }),
      new FakePod({ used, reachable: false }),
      new FakePod({ state: null }),
    ];
    expect(usageOf(pods)).toEqual({ slots: { total: 16, used: 6 }, hostBytes: { total: 2_000, used: 20 } });
  });
});

describe('a pool is ready', () => {
  const pool = serverPool(1);
  const silent = { reachable: false, error: 'connect ECONNREFUSED' };
  const locked = {
    ...new FakePod({ name: 'c', ...silent, error: 'there is no Secret admin' }),
    lacksToken: true,
  };
  it.each([
    ['without pods', [], 'False', 'NoPodsMatch'],
    ['with pods that answer', [new FakePod()], 'True', 'PodsReady'],
    ['with a silent pod', [new FakePod(), new FakePod({ name: 'b', ...silent })], 'False', 'PodsNotReady'],
    [
      'with a pod that has just joined',
      [new FakePod(), new FakePod({ name: 'b', state: null })],
      'False',
      'PodsNotReady',
    ],
    [
      'with another base model',
      [new FakePod(), new FakePod({ baseModel: { name: 'owl' } })],
      'False',
      'BaseModelMismatch',
    ],
    ['without a token', [new FakePod({ name: 'b', ...silent }), locked], 'False', 'TokenNotFound'],
  ])('%s → %s %s', (_name, pods, status, reason) => {
    expect(
      poolVerdict(pool, {
        pods,
        placement: placementOf(pool, pods),
        claimed: [],
        held: [],
        watchesAll: true,
      }),
    ).toMatchObject({
      status,
      reason,
    });
  });
});
