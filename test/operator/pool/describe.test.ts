import { describe, expect, it } from 'vitest';
import { placementOf } from '../../../operator/placement/placement.ts';
import { capacityVerdict, poolVerdict, usageOf } from '../../../operator/pool/describe.ts';
import { serverPool } from '../adapter/objects.ts';
import { fakePod } from '../adapter/pods.ts';

describe('the capacity of a pool', () => {
  const idle = fakePod({ name: 'a' });
  it.each([
    ['nobody has reported', [fakePod({ state: null })], 'Unknown', 'Pending'],
    ['room everywhere', [idle], 'False', 'Sufficient'],
    ['all slots of one pod taken', [idle, fakePod({ used: { slots: 8 } })], 'True', 'SlotsFull'],
    [
      'host memory of one pod nearly full',
      [idle, fakePod({ used: { hostBytes: 901 } })],
      'True',
      'HostMemoryFull',
    ],
    ['both', [fakePod({ used: { slots: 8, hostBytes: 901 } })], 'True', 'HostMemoryFull'],
    [
      'a full pod that is silent',
      [idle, fakePod({ used: { slots: 8 }, reachable: false })],
      'False',
      'Sufficient',
    ],
  ])('%s → %s %s', (_name, pods, status, reason) => {
    expect(capacityVerdict(pods)).toMatchObject({ status, reason });
  });

  it('is the sum over pods that answer', () => {
    const used = { slots: 3, hostBytes: 10 };
    const pods = [
      fakePod({ used }),
      fakePod({ used }),
      fakePod({ used, reachable: false }),
      fakePod({ state: null }),
    ];
    expect(usageOf(pods)).toEqual({ slots: { total: 16, used: 6 }, hostBytes: { total: 2_000, used: 20 } });
  });
});

describe('a pool is ready', () => {
  const pool = serverPool(1);
  const silent = { reachable: false, error: 'connect ECONNREFUSED' };
  const locked = {
    ...fakePod({ name: 'c', ...silent, error: 'there is no Secret admin' }),
    lacksToken: true,
  };
  it.each([
    ['without pods', [], 'False', 'NoPodsMatch'],
    ['with pods that answer', [fakePod()], 'True', 'PodsReady'],
    ['with a silent pod', [fakePod(), fakePod({ name: 'b', ...silent })], 'False', 'PodsNotReady'],
    [
      'with a pod that has just joined',
      [fakePod(), fakePod({ name: 'b', state: null })],
      'False',
      'PodsNotReady',
    ],
    [
      'with another base model',
      [fakePod(), fakePod({ baseModel: { name: 'owl' } })],
      'False',
      'BaseModelMismatch',
    ],
    ['without a token', [fakePod({ name: 'b', ...silent }), locked], 'False', 'TokenNotFound'],
  ])('%s → %s %s', (_name, pods, status, reason) => {
    expect(poolVerdict(pool, pods, placementOf(pool, pods))).toMatchObject({ status, reason });
  });
});
