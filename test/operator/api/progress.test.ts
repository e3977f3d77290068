import { expect, it } from 'vitest';
import type { AdapterConditionType, Condition } from '../../../operator/api/conditions.ts';
import { setProgress } from '../../../operator/api/progress.ts';

const [early, late] = ['2026-06-01T10:00:00Z', '2026-06-01T11:00:00Z'];
const condition = (type: AdapterConditionType, status: 'True' | 'False' | 'Unknown', reason = 'NotLoaded') =>
  ({
    ...{ type, status, reason, message: 'why' },
    ...{ lastTransitionTime: early, observedGeneration: 1 },
  }) satisfies Condition;
const RECONCILING = condition('Reconciling', 'True');
const STALLED = condition('Stalled', 'True');

it.each([
  ['Ready is true', 'True', false, [], []],
  ['Ready became true', 'True', false, [RECONCILING, STALLED], []],
  ['it goes on', 'False', false, [], ['Reconciling', late]],
  ['nobody knows', 'Unknown', false, [], ['Reconciling', late]],
  ['it still goes on', 'False', false, [RECONCILING], ['Reconciling', early]],
  ['it goes on again', 'False', false, [STALLED], ['Reconciling', late]],
  ['it is stuck', 'False', true, [RECONCILING], ['Stalled', late]],
  ['it is still stuck', 'False', true, [STALLED], ['Stalled', early]],
] as const)('is said while it is true, and since when: %s', (_, status, isStalled, before, after) => {
  const ready = condition('Ready', status, 'PoolNotFound');
  const conditions = setProgress<AdapterConditionType>([ready, ...before], {
    isStalled,
    observedGeneration: 2,
    now: new Date(late),
  });
  const [type, lastTransitionTime] = after;
  const told = {
    ...{ type, status: 'True', reason: 'PoolNotFound', message: 'why' },
    ...{ lastTransitionTime, observedGeneration: 2 },
  };
  expect(conditions).toEqual(type === undefined ? [ready] : [ready, told]);
});
