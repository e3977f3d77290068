import { describe, expect, it } from 'vitest';
import { type Attempt, type Confirmed, plan, planRemoval } from '../../../operator/adapter/plan.ts';
import { FakePod, type FakePodOptions } from '../../support/pod/fake-pod.ts';
import { adapterState, digest, held } from '../../support/pod/state.ts';

const D = digest('d');
const OTHER = digest('e');

function attempt(overrides: Partial<Attempt> = {}): Attempt {
  const failed = { bootId: 'boot', digest: D, failures: 1, code: 'internal', message: 'no', terminal: false };
  return { ...failed, retryAtMs: 2_000, retryAt: new Date(0), used: null, ...overrides };
}

function confirmed(overrides: Partial<Confirmed> = {}): Confirmed {
  return { bootId: 'boot', digest: D, as: 'current', untilMs: 2_000, ...overrides };
}

interface Case {
  name: string;
  desired?: string | null;
  pod?: FakePodOptions;
  last?: Attempt | null;
  word?: Confirmed;
  refusedSomewhere?: boolean;
  onlyWhereNothing?: boolean;
  action: string;
}

const FULL = { slots: 8, pages: 8, hostBytes: 900 };
const CURRENT = { adapters: [adapterState('sql', D)] };
const HELD = {
  adapters: [adapterState('sql', OTHER, [held(OTHER, 'current'), held(D, 'staged')])],
};
const LEAVING = { adapters: [adapterState('sql', OTHER, [held(D, 'retired')])] };

const CASES: Case[] = [
  { name: 'nothing desired', desired: null, action: 'none' },
  { name: 'no report yet', pod: { state: null }, action: 'wait' },
  { name: 'unreachable, though it held it', pod: { ...CURRENT, reachable: false }, action: 'wait' },
  { name: 'current', pod: CURRENT, action: 'none' },
  {
    name: 'current, whatever failed before',
    pod: CURRENT,
    last: attempt({ terminal: true }),
    action: 'none',
  },
  { name: 'absent', action: 'stage' },
  {
    name: 'absent, another adapter there',
    pod: { adapters: [adapterState('x', D)] },
    action: 'stage',
  },
  { name: 'absent, refused', last: attempt({ terminal: true }), action: 'refused' },
  {
    name: 'absent, refused in an earlier boot',
    last: attempt({ terminal: true, bootId: 'old' }),
    action: 'stage',
  },
  {
    name: 'absent, another revision refused',
    last: attempt({ terminal: true, digest: OTHER }),
    action: 'stage',
  },
  { name: 'absent, failed just now', last: attempt(), action: 'backoff' },
  { name: 'absent, failed and due', last: attempt({ retryAtMs: 1_000 }), action: 'stage' },
  {
    name: 'held, says its report, but not when asked to serve it',
    pod: HELD,
    last: attempt({ code: 'revision_not_found', retryAtMs: 1_000 }),
    action: 'stage',
  },
  {
    name: 'held, says its report, but just now not even the name was there',
    pod: HELD,
    last: attempt({ code: 'adapter_not_found' }),
    action: 'backoff',
  },
  {
    name: 'absent, did not fit, and less is taken now',
    pod: { used: { slots: 7, pages: 8, hostBytes: 900 } },
    last: attempt({ code: 'no_capacity', used: FULL }),
    action: 'stage',
  },
  {
    name: 'absent, did not fit, and as much is taken',
    pod: { used: FULL },
    last: attempt({ code: 'no_capacity', used: FULL }),
    action: 'backoff',
  },
  {
    name: 'absent, failed otherwise, and less is taken now',
    pod: { used: { ...FULL, slots: 1 } },
    last: attempt({ used: FULL }),
    action: 'backoff',
  },
  { name: 'held', pod: HELD, action: 'activate' },
  { name: 'held, failed just now', pod: HELD, last: attempt(), action: 'backoff' },
  { name: 'held, refused', pod: HELD, last: attempt({ terminal: true }), action: 'refused' },
  { name: 'held, refused by another pod', pod: HELD, refusedSomewhere: true, action: 'hold' },
  { name: 'suspended, another current', pod: HELD, onlyWhereNothing: true, action: 'none' },
  { name: 'suspended, nothing there', onlyWhereNothing: true, action: 'stage' },
  { name: 'absent, confirmed just now', word: confirmed({ as: 'held' }), action: 'wait' },
  { name: 'absent, confirmed long ago', word: confirmed({ untilMs: 1_000 }), action: 'stage' },
  { name: 'absent, confirmed in an earlier boot', word: confirmed({ bootId: 'old' }), action: 'stage' },
  { name: 'absent, another revision confirmed', word: confirmed({ digest: OTHER }), action: 'stage' },
  { name: 'held, confirmed as that', pod: HELD, word: confirmed({ as: 'held' }), action: 'activate' },
  { name: 'held, confirmed as current', pod: HELD, word: confirmed(), action: 'wait' },
  { name: 'current, confirmed as that', pod: CURRENT, word: confirmed(), action: 'none' },
  { name: 'held only until running requests end', pod: LEAVING, action: 'stage' },
];

describe('plan', () => {
  it.each(CASES)(
    '$name → $action',
    ({ desired = D, pod = {}, last = null, word = null, action, ...flags }) => {
      const { refusedSomewhere = false, onlyWhereNothing = false } = flags;
      const input = { servedName: 'sql', digest: desired, pods: [new FakePod(pod)], nowMs: 1_500 };
      const known = { attemptOf: () => last, confirmedBy: () => word };
      const rows = plan({ ...input, ...known, refusedSomewhere, onlyWhereNothing, isBarrier: false });
      expect(rows.map((row) => row.action)).toEqual([action]);
    },
  );

  it('has one row for each pod, in their order', () => {
    const pods = [
      new FakePod({ name: 'a', ...CURRENT }),
      new FakePod({ name: 'b' }),
      new FakePod({ name: 'c', ...HELD }),
    ];
    const rows = plan({
      servedName: 'sql',
      digest: D,
      pods,
      attemptOf: () => null,
      confirmedBy: () => null,
      refusedSomewhere: false,
      isBarrier: false,
      onlyWhereNothing: false,
      nowMs: 0,
    });
    expect(rows.map(({ pod, action }) => [pod.name, action])).toEqual([
      ['a', 'none'],
      ['b', 'stage'],
      ['c', 'activate'],
    ]);
  });
});

describe('planRemoval', () => {
  const leaving = held(D, 'retired', { leases: 1 });
  it.each([
    ['no report yet', { state: null }, 'wait'],
    ['unreachable', { ...CURRENT, reachable: false }, 'wait'],
    ['absent', {}, 'none'],
    ['current', CURRENT, 'remove'],
    ['only staged', { adapters: [adapterState('sql', null, [held(D, 'staged')])] }, 'remove'],
    ['leaving', { adapters: [adapterState('sql', null, [leaving])] }, 'drain'],
    [
      'leaving beside a staged one',
      { adapters: [adapterState('sql', null, [leaving, held(OTHER, 'staged')])] },
      'remove',
    ],
  ] as const)('%s → %s', (_name, pod, action) => {
    const [row] = planRemoval([new FakePod(pod as FakePodOptions)], 'sql');
    expect(row?.action).toBe(action);
  });
});
