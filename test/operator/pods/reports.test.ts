import { describe, expect, it } from 'vitest';
import { Reports } from '../../../operator/pods/reports.ts';
import { PodUnreachable } from '../../../server/transfer/unreachable.ts';
import { adapterState, digest, podState } from '../../support/pod/state.ts';

const state = (hex: string) =>
  podState({ adapters: ['a', 'b'].map((name) => adapterState(name, digest(name === 'b' ? hex : '1'))) });

describe('the reports of two pods', () => {
  it('share what they say alike, and only that', () => {
    const reports = new Reports();
    const [one, two] = ['1', '2'].map((hex) => reports.state(JSON.stringify(state(hex))));
    expect([one, two]).toEqual([state('1'), state('2')]);
    expect(two?.adapters[0]).toBe(one?.adapters[0]);

    const changed = reports.changes(JSON.stringify({ ...state('1'), removed: ['c'] }));
    expect(changed.adapters[1]).toBe(one?.adapters[1]);
    expect(changed.removed).toEqual(['c']);
  });

  it('are bounded in what they share: what has not been said for long is kept by nobody', () => {
    const reports = new Reports();
    const said = () => reports.state(JSON.stringify(state('1'))).adapters[0];
    const first = said();
    const many = Array.from({ length: 16_384 }, (_, at) => adapterState(`other-${at}`, digest('3')));
    reports.state(JSON.stringify(podState({ adapters: many })));
    expect(said()).not.toBe(first);
    expect(said()).toEqual(first);
  });

  it('are refused where they are not of the admin API, naming what is wrong', () => {
    const wrong = { ...state('1'), adapters: [adapterState('a', digest('1')), { name: 'b' }] };
    const read = () => new Reports().state(JSON.stringify(wrong));
    expect(read).toThrow(PodUnreachable);
    expect(read).toThrow(/adapters\.1\.current/);
    expect(() => new Reports().state('[')).toThrow(PodUnreachable);
  });
});
