import { beforeEach, describe, expect, it } from 'vitest';
import { Vigil } from '../../../operator/adapter/vigil.ts';
import { FakeClock } from '../kube/fake-clock.ts';

let clock: FakeClock;
let vigil: Vigil;

beforeEach(() => {
  clock = new FakeClock();
  vigil = new Vigil(clock);
});

/** When each of so many things is looked at next. */
const looks = (count: number) => Array.from({ length: count }, (_, index) => vigil.lookMs(`secret-${index}`));

describe('what somebody is expected to put right', () => {
  it('is looked at after five seconds, again and again', () => {
    for (let times = 0; times < 20; times += 1) {
      expect(vigil.lookMs('a')).toBe(5_000);
      clock.freeze(5_000);
    }
  });

  it('is looked at by all who await it at the same time', () => {
    vigil.lookMs('a');
    clock.freeze(2_000);
    expect([vigil.lookMs('a'), vigil.lookMs('a'), vigil.lookMs('b')]).toEqual([3_000, 3_000, 5_000]);
  });

  it('costs ten looks a second, however much there is of it', () => {
    const times = looks(1_000);
    expect(times.every((ms, index) => index === 0 || ms - (times[index - 1] ?? 0) === 100)).toBe(true);
    expect(times[49]).toBeLessThan(10_000);
  });

  it('waits five minutes at most', () => {
    expect(Math.max(...looks(5_000))).toBe(300_000);
  });

  it('costs those that come later nothing once its time has passed', () => {
    looks(1_000);
    clock.freeze(200_000);
    expect(vigil.lookMs('late')).toBe(5_000);
  });
});
