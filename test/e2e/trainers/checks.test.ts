import { describe, expect, it } from 'vitest';
import { checkRatios, checkRevisions, checkReward, quantile } from './checks.ts';
import type { Recording } from './recorder.ts';

/** Values about `middle`, one above and one below in turn. */
const about = (middle: number, steps: number) =>
  Array.from({ length: steps }, (_, step) => middle + (step % 2 === 0 ? 0.01 : -0.01));

describe('the reward', () => {
  it('rose by more than chance', () => {
    expect(checkReward([...about(0.1, 50), ...about(0.2, 50)]).isGood).toBe(true);
  });

  it('rose by less than two standard errors', () => {
    // One of a window is 0.01 × √(20 / 19 / 20) = 0.0023, of the difference 0.0032.
    expect(checkReward([...about(0.1, 50), ...about(0.106, 50)]).isGood).toBe(false);
    expect(checkReward([...about(0.1, 50), ...about(0.107, 50)]).isGood).toBe(true);
  });

  it('fell', () => {
    expect(checkReward([...about(0.2, 50), ...about(0.1, 50)]).isGood).toBe(false);
  });

  it('is not judged by fewer than 40 steps', () => {
    expect(checkReward(about(0.1, 39)).isGood).toBeNull();
    expect(checkReward(about(0.1, 40)).isGood).toBe(false);
  });
});

describe('the revisions', () => {
  const recording = (more: Partial<Recording> = {}): Recording => ({
    ...{ ofVersions: 80, ofBase: 2, versions: 11, wrong: 0, faults: [], refused: new Map() },
    ...{ loadMs: [], readMs: [], samples: [] },
    ...more,
  });
  const judged = (more?: Partial<Recording>) =>
    checkRevisions(recording(more), 10).map(({ isGood }) => isGood);

  it.each<[string, Partial<Recording>, boolean[]]>([
    ['all are right', {}, [true, true]],
    ['one is wrong', { wrong: 1 }, [false, true]],
    ['nothing was asked of a version', { ofVersions: 0 }, [false, true]],
    ['nothing was asked of the base', { ofBase: 0 }, [false, true]],
    ['fewer versions than steps', { versions: 9 }, [false, true]],
    ['one was refused', { refused: new Map([[404, 1]]) }, [true, false]],
  ])('%s', (_, more, expected) => {
    expect(judged(more)).toEqual(expected);
  });
});

it('the ratios are near 1 with processed log-probabilities, and must be off with raw ones', () => {
  const distance = (largest: number) => ({ tokens: 9, largest, mean: largest / 2 });
  const judged = (processed: number, raw: number) =>
    checkRatios({ processed: distance(processed), raw: distance(raw) }).map(({ isGood }) => isGood);
  expect(judged(1e-3, 0.5)).toEqual([true, true]);
  expect(judged(1.1e-3, 0.5)).toEqual([false, true]);
  expect(judged(1e-5, 1e-5)).toEqual([true, false]);
});

it('a quantile lies between two values where it falls there', () => {
  const values = [5, 1, 3, 2, 4];
  expect([quantile(values, 0), quantile(values, 0.5), quantile(values, 0.9), quantile(values, 1)]).toEqual([
    1, 3, 4.6, 5,
  ]);
  expect(quantile([], 0.5)).toBeNaN();
});
