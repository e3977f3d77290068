import { describe, expect, it } from 'vitest';
import { type Conclusion, conclude } from '../../../operator/adapter/conclude.ts';
import type { Draft } from '../../../operator/adapter/draft.ts';
import { plan } from '../../../operator/adapter/plan.ts';
import { Records } from '../../../operator/adapter/records.ts';
import type { LoraAdapter, RevisionRecord } from '../../../operator/api/lora-adapter.ts';
import type { Pod } from '../../../operator/pods/pod.ts';
import { FakePod } from '../../support/pod/fake-pod.ts';
import { adapterState, digest } from '../../support/pod/state.ts';
import { loraAdapter, POOL_KEY, pushedAdapter, serverPool } from './objects.ts';

const [OLD, NEW] = [digest('a'), digest('b')];
const now = new Date('2026-06-01T00:00:00Z');
const yes = (reason: 'Resolved' | 'Placed' | 'Verified') => ({ status: 'True', reason }) as const;
const GOOD = { SourceResolved: yes('Resolved'), Placed: yes('Placed'), Verified: yes('Verified') };
const LOST = { status: 'False', reason: 'RevisionLost', message: 'gone' } as const;

const revision = (of: string): RevisionRecord => {
  return { digest: of, short: of.slice(7, 19), step: null, bytes: 1, rank: 8, targetModules: [], at: '' };
};
const serving = (of: string) => new FakePod({ adapters: [adapterState('sql', of)] });

function concluded(pods: Pod[], change: Partial<Conclusion> = {}, adapter: LoraAdapter = loraAdapter('sql')) {
  const spool = { pin() {}, unpin() {} };
  const record = new Records().of('lora/sql', 'uid-sql', spool);
  const told = { desiredRevision: revision(NEW), currentRevision: revision(OLD) };
  record.recover(told, null, spool);
  const placement = { members: pods, desired: pods, shortage: null, mismatched: [], fit: null, maxBytes: 1 };
  const named = { key: 'lora/sql', servedName: 'sql', poolKey: POOL_KEY, pool: serverPool(1) };
  const draft: Draft = {
    ...{ adapter, ...named, placement, record },
    ...{ standing: 'allowed', againMs: null, askedMs: null, quietMs: 0 },
  };
  const input = { servedName: 'sql', digest: NEW, pods, attemptOf: () => null, confirmedBy: () => null };
  const rows = plan({
    ...input,
    refusedSomewhere: false,
    isBarrier: false,
    onlyWhereNothing: false,
    nowMs: 0,
  });
  const status = conclude(draft, { verdicts: GOOD, rows, pushUrl: null, now, ...change });
  return Object.fromEntries(status.conditions?.map((condition) => [condition.type, condition]) ?? []);
}

describe('conditions', () => {
  it.each([
    ['all pods serve it', [serving(NEW)], {}, 'Loaded', 'Ready'],
    ['pods lack it', [serving(OLD)], {}, 'Loading', 'Loading'],
    ['it cannot be brought to them', [serving(OLD)], { Loaded: LOST }, 'RevisionLost', 'RevisionLost'],
    ['it cannot, but they have it', [serving(NEW)], { Loaded: LOST }, 'Loaded', 'Ready'],
  ] as const)('where %s', (_name, pods, verdicts, loaded, ready) => {
    const { Loaded, Ready } = concluded([...pods], { verdicts: { ...GOOD, ...verdicts } });
    expect([Loaded?.reason, Ready?.reason]).toEqual([loaded, ready]);
  });

  it('that no phase has judged stay as they were, or wait', () => {
    const first = concluded([serving(NEW)], { verdicts: { SourceResolved: GOOD.SourceResolved } });
    expect(first.Verified).toMatchObject({ status: 'Unknown', reason: 'Pending' });
    const conditions = Object.values(concluded([serving(NEW)]));
    const adapter = { ...loraAdapter('sql', { metadata: { generation: 2 } }), status: { conditions } };
    const second = concluded([serving(NEW)], { verdicts: { Placed: GOOD.Placed } }, adapter);
    expect(second.Verified).toMatchObject({ status: 'True', observedGeneration: 1 });
    expect(second.Placed).toMatchObject({ status: 'True', observedGeneration: 2 });
  });

  it('say that the old revision keeps serving', () => {
    const { Ready } = concluded([serving(OLD)], { verdicts: { ...GOOD, Loaded: LOST } });
    expect(Ready).toMatchObject({ status: 'False', message: expect.stringContaining('aaa keeps serving') });
  });

  it.each([
    ['the source first', loraAdapter('sql'), 'SourceNotFound'],
    ['of a pushed one the name first', pushedAdapter('sql'), 'ServedNameTaken'],
  ])('of which several do not hold: Ready names %s', (_name, adapter, reason) => {
    const SourceResolved = { status: 'False', reason: 'SourceNotFound' } as const;
    const Placed = { status: 'False', reason: 'ServedNameTaken' } as const;
    const { Ready } = concluded([], { verdicts: { SourceResolved, Placed }, rows: [] }, adapter);
    expect(Ready?.reason).toBe(reason);
  });
});
