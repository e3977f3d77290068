import { describe, expect, it } from 'vitest';
import { failureOf, RevisionLost } from '../../../operator/adapter/failures.ts';
import type { Attempt, Row } from '../../../operator/adapter/plan.ts';
import { requireMayFollow } from '../../../operator/adapter/publish/preconditions.ts';
import type { AdapterRecord } from '../../../operator/adapter/record.ts';
import { Records } from '../../../operator/adapter/records.ts';
import { missingFor } from '../../../operator/adapter/seeding.ts';
import { loadedVerdict, podErrorsOf } from '../../../operator/adapter/status.ts';
import type { LoraAdapterStatus, RevisionRecord } from '../../../operator/api/lora-adapter.ts';
import { ownerOfName } from '../../../operator/placement/owner.ts';
import { placementFor, placementOf } from '../../../operator/placement/placement.ts';
import type { Pod } from '../../../operator/pods/pod.ts';
import { Retryable, Terminal } from '../../../operator/source/types.ts';
import { type ErrorCode, LorikeetError } from '../../../server/contract/errors.ts';
import { PodUnreachable } from '../../../server/transfer/unreachable.ts';
import { FakePod, type FakePodOptions } from '../../support/pod/fake-pod.ts';
import { adapterState, BASE_MODEL, digest } from '../../support/pod/state.ts';
import { loraAdapter, POOL_KEY, pushedAdapter, serverPool } from './objects.ts';

const D = digest('d');

function revision(step: number | null): RevisionRecord {
  return { digest: D, short: 'd', step, bytes: 1, rank: 1, targetModules: [], at: '' };
}

describe('errors become conditions', () => {
  it.each([
    [new Terminal('SourceNotFound', 'x'), 'SourceNotFound', true],
    [new Retryable('SourceUnreachable', 'x'), 'SourceUnreachable', false],
    [new RevisionLost('x'), 'RevisionLost', true],
    [new LorikeetError('shape_mismatch', 'x'), 'AdapterIncompatible', true],
    [new LorikeetError('rank_too_large', 'x'), 'RankTooLarge', true],
    [new LorikeetError('non_finite', 'x'), 'AdapterMalformed', true],
    [new LorikeetError('no_capacity', 'x'), 'NoCapacity', false],
    [new LorikeetError('digest_mismatch', 'x'), 'PodsFailed', false],
    [new LorikeetError('verification_failed', 'x', { field: 'spec.verify.sha256' }), 'DigestMismatch', true],
    [new LorikeetError('verification_failed', 'x', { field: 'spec.verify.rank' }), 'RankMismatch', true],
    [new LorikeetError('stale_fence', 'x'), 'PodsFailed', false],
    [new PodUnreachable('x'), 'PodsUnreachable', false],
    [new TypeError('x'), 'InternalError', false],
    ['not even an error', 'InternalError', false],
  ])('%s → %s', (error, reason, terminal) => {
    expect(failureOf(error)).toMatchObject({ reason, terminal });
  });
});

describe('the owner of a served name', () => {
  const at = (name: string, creationTimestamp: string, spec = {}) =>
    loraAdapter(name, { metadata: { creationTimestamp }, spec: { servedName: 'sql', ...spec } });
  const old = at('old', '2026-01-01T00:00:00Z');
  it.each([
    ['the older', [at('young', '2026-02-01T00:00:00Z'), old], 'old'],
    [
      'of twins the one with the smaller uid',
      [at('b', '2026-01-01T00:00:00Z'), at('a', '2026-01-01T00:00:00Z')],
      'a',
    ],
    [
      'not one of another pool',
      [at('x', '2025-01-01T00:00:00Z', { poolRef: { name: 'other' } }), old],
      'old',
    ],
    ['nobody', [], undefined],
  ])('is %s', (_name, adapters, owner) => {
    expect(ownerOfName(adapters, POOL_KEY, 'sql')?.metadata.name).toBe(owner);
  });
});

describe('a push may follow', () => {
  const cases: [string, (number | null)[], { ifMatch?: string; step?: number }, string | null][] = [
    ['the first, without conditions', [], {}, null],
    ['a matching digest', [1], { ifMatch: D }, null],
    ['a matching digest in quotes', [1], { ifMatch: `"${D}"` }, null],
    ['anything there', [1], { ifMatch: '*' }, null],
    ['another digest', [1], { ifMatch: digest('e') }, 'precondition_failed'],
    ['anything, but nothing is there', [], { ifMatch: '*' }, 'precondition_failed'],
    ['a greater step', [4], { step: 5 }, null],
    ['the same step', [4], { step: 4 }, 'step_not_newer'],
    ['a smaller step', [4], { step: 3 }, 'step_not_newer'],
    ['no step after a step', [4], {}, null],
    ['an old step after a push without one', [null, 4], { step: 4 }, 'step_not_newer'],
  ];
  it.each(cases)('%s', (_name, steps, { ifMatch = null, step = null }, code) => {
    const [desired = null, ...previous] = steps.map(revision);
    const act = () => requireMayFollow({ desired, previous }, { ifMatch, step });
    if (code === null) expect(act).not.toThrow();
    else expect(act).toThrow(expect.objectContaining({ code }));
  });
});

describe('the placement in a pool', () => {
  const other = digest('0');
  it('takes pods with the base model of the pool, and those that have not said', () => {
    const pods = [
      new FakePod({ name: 'a' }),
      new FakePod({ name: 'b', baseModel: { name: 'owl' } }),
      new FakePod({ name: 'c', baseModel: { digest: other } }),
      new FakePod({ name: 'd', state: null }),
      new FakePod({ name: 'e' }),
    ];
    const { desired, mismatched } = placementOf(serverPool(1), pods);
    expect(desired.map(({ name }) => name)).toEqual(['a', 'd', 'e']);
    expect(mismatched.map(({ name }) => name)).toEqual(['b', 'c']);
  });

  it('goes by the digest of the pool where it names one', () => {
    const pods = [new FakePod({ name: 'a' }), new FakePod({ name: 'b', baseModel: { digest: other } })];
    const pool = serverPool(1, { baseModel: { name: 'parrot', digest: other } });
    expect(placementOf(pool, pods).desired.map(({ name }) => name)).toEqual(['b']);
    expect(BASE_MODEL.digest).not.toBe(other);
  });

  it('takes the narrowest of all limits', () => {
    const pods = [
      new FakePod({ limits: { maxRank: 32 } }),
      new FakePod({ limits: { maxAdapterBytes: 200 } }),
    ];
    const pool = serverPool(1, { limits: { maxRank: 48, maxAdapterBytes: '1Ki' } });
    expect(placementOf(pool, pods)).toMatchObject({ fit: { maxRank: 32 }, maxBytes: 200 });
    expect(placementOf(pool, [new FakePod({ state: null })]).fit).toBeNull();
  });

  it.each([
    ['100', 100],
    ['1Mi', 500],
    [undefined, 500],
  ])('takes pushes of one adapter up to its own limit of %s too', (maxBytes, expected) => {
    const { spec } = pushedAdapter('sql', { spec: { source: { push: { maxBytes } } } });
    expect(placementFor(spec, serverPool(1), [new FakePod()]).maxBytes).toBe(expected);
  });

  it('is nowhere without a pool', () => {
    expect(placementFor(null, null, [new FakePod()])).toMatchObject({ desired: [], fit: null });
  });
});

describe('status from a plan', () => {
  const failed = (code: string, terminal = false): Attempt => ({
    bootId: 'boot',
    digest: D,
    failures: 1,
    code,
    message: 'words',
    terminal,
    retryAtMs: 0,
    used: null,
    retryAt: new Date('2026-06-01T00:00:00Z'),
  });
  const row = (name: string, overrides: Partial<Row> = {}): Row => ({
    pod: new FakePod({ name }),
    observed: 'current',
    action: 'none',
    attempt: null,
    confirmed: null,
    ...overrides,
  });
  const silent = (name: string, error: string | null) =>
    row(name, { pod: new FakePod({ name, reachable: false, error }), observed: 'unreachable' });
  const refused = row('r', { observed: 'absent', attempt: failed('shape_mismatch', true) });
  const full = row('f', { observed: 'absent', attempt: failed('no_capacity') });
  const hung = row('h', { observed: 'absent', attempt: failed('Unreachable') });

  it.each([
    ['all current', [row('a'), row('b')], 'True', 'Loaded'],
    ['all there', [row('a', { observed: 'held' })], 'True', 'Loaded'],
    ['one on its way', [row('a'), row('b', { observed: 'absent' })], 'False', 'Loading'],
    ['one that has just joined', [row('a'), silent('b', null)], 'False', 'Loading'],
    ['one silent', [row('a'), silent('b', 'refused')], 'Unknown', 'PodsUnreachable'],
    ['one that hangs', [row('a'), hung], 'Unknown', 'PodsUnreachable'],
    ['one refused', [row('a'), refused, silent('b', 'x')], 'False', 'PodsFailed'],
    ['one full', [row('a'), full], 'False', 'NoCapacity'],
    ['one full, one refused', [full, refused], 'False', 'PodsFailed'],
  ] as const)('%s → %s %s', (_name, rows, status, reason) => {
    expect(loadedVerdict([...rows])).toMatchObject({ status, reason });
  });

  it('names pods worst first, at most twenty, with a time only where there is a next try', () => {
    expect(podErrorsOf([row('a'), silent('s', 'refused'), full, refused])).toEqual([
      { name: 'r', reason: 'shape_mismatch', message: 'words' },
      { name: 'f', reason: 'no_capacity', message: 'words', retryAt: '2026-06-01T00:00:00Z' },
      { name: 's', reason: 'Unreachable', message: 'refused' },
    ]);
    const many = Array.from({ length: 30 }, (_, index) => silent(`s${index}`, 'x'));
    expect(podErrorsOf(many)).toHaveLength(20);
  });
});

describe('a new pod waits for', () => {
  type Happened = (record: AdapterRecord) => void;
  const spool = { pin() {}, unpin() {} };
  const recovered = (record: AdapterRecord, status: LoraAdapterStatus) => {
    record.recover(status, null, spool);
    record.decide(true);
  };
  const known: Happened = (record) => recovered(record, { desiredRevision: revision(null) });
  function missing(
    happened: Happened,
    pod: Pod = new FakePod(),
    adapter = pushedAdapter('sql'),
    others: Pod[] = [],
  ) {
    const records = new Records();
    happened(records.of('lora/sql', 'uid-sql', { pin() {}, unpin() {} }));
    const found = missingFor(pod, { pods: [pod, ...others], adapters: [adapter], records, shares: null });
    return found.map(({ name, refusal }) => (refusal === null ? name : `${name} ${refusal}`));
  }
  const serving = new FakePod({ adapters: [adapterState('sql', D)] });
  const attemptOf = (code: string, terminal: boolean): Attempt => ({
    bootId: 'boot',
    digest: D,
    failures: 1,
    code,
    message: '',
    terminal,
    retryAtMs: 0,
    retryAt: new Date(0),
    used: null,
  });

  const after = (code: ErrorCode, terminal: boolean): Happened => {
    return (record) => {
      known(record);
      record.failPod('uid-pod-0', attemptOf(code, terminal), failureOf(new LorikeetError(code, '')));
    };
  };
  const lost: Happened = (record) => {
    known(record);
    record.lose(D);
  };

  it.each<[string, Happened, string[]]>([
    ['what it lacks', known, ['sql']],
    ['what nobody has looked at yet', () => {}, ['sql']],
    ['what failed for the moment', after('internal', false), ['sql']],
    ['not what has no revision', (record) => recovered(record, {}), []],
    ['not what it refused', after('non_finite', true), []],
    ['not what does not fit into it', after('no_capacity', false), []],
    ['not what nobody has any more', lost, []],
  ])('%s', (_name, happened, names) => {
    expect(missing(happened)).toEqual(names);
  });

  const other = (options: FakePodOptions = {}) =>
    new FakePod({ name: 'pod-1', adapters: [adapterState('sql', D)], ...options });
  const unseeded = new FakePod({ seeded: false, adapters: [adapterState('sql', D)] });
  it.each<[string, Happened, Pod, string[]]>([
    ['what it refused', after('rank_too_large', true), other(), ['sql rank_too_large']],
    ['what does not fit into it', after('no_capacity', false), other(), ['sql no_capacity']],
    ['not where that is silent', after('rank_too_large', true), other({ reachable: false }), []],
    ['not where that gets no requests either', after('rank_too_large', true), unseeded, []],
  ])('%s, while another pod serves it', (_name, happened, peer, names) => {
    expect(missing(happened, new FakePod(), pushedAdapter('sql'), [peer])).toEqual(names);
  });

  it('not a newer revision that it refused of what it serves', () => {
    const E = digest('e');
    const older = new FakePod({ adapters: [adapterState('sql', E)] });
    expect(missing(after('rank_too_large', true), older, pushedAdapter('sql'), [other()])).toEqual([]);
  });

  it('not what it serves', () => {
    expect(missing(known, serving)).toEqual([]);
  });

  it('not what leaves', () => {
    const deleting = pushedAdapter('sql', { metadata: { deletionTimestamp: '2026-06-01T00:00:00Z' } });
    expect(missing(known, new FakePod(), deleting)).toEqual([]);
  });

  it.each<[string, Happened, Pod, string[]]>([
    [
      'what the others serve',
      (record) => recovered(record, { desiredRevision: revision(2), currentRevision: revision(1) }),
      new FakePod(),
      ['sql'],
    ],
    ['not what none ever served', known, new FakePod(), []],
    [
      'not what it serves, in whichever revision',
      (record) =>
        recovered(record, {
          desiredRevision: revision(2),
          currentRevision: { ...revision(1), digest: digest('e') },
        }),
      serving,
      [],
    ],
  ])('while it is suspended %s', (_name, happened, pod, names) => {
    expect(missing(happened, pod, pushedAdapter('sql', { spec: { suspend: true } }))).toEqual(names);
  });
});
