import { describe, expect, it } from 'vitest';
import { StepWatch } from '../../../server/engine/step-watch.ts';

function watch(hangMs = 100) {
  let nowMs = 0;
  const watched = new StepWatch(hangMs, () => nowMs);
  return (atMs: number, step: number, sequences: { running?: number; waiting?: number }) => {
    nowMs = atMs;
    return watched.hangMs({ step, running: 0, waiting: 0, ...sequences });
  };
}

describe('an engine', () => {
  it.each([{ running: 1 }, { waiting: 1 }])('hangs where its step stands still with %j', (sequences) => {
    const look = watch();
    expect([look(0, 7, sequences), look(100, 7, sequences), look(101, 7, sequences)]).toEqual([
      null,
      null,
      101,
    ]);
  });

  it('gets on again with its next step', () => {
    const look = watch();
    look(0, 7, { running: 1 });
    expect(look(500, 7, { running: 1 })).toBe(500);
    expect(look(501, 8, { running: 1 })).toBeNull();
  });

  it('has all the time where there is nothing to do', () => {
    const look = watch();
    look(0, 7, { running: 1 });
    expect(look(500, 7, {})).toBeNull();
    expect(look(1000, 7, { running: 1 })).toBeNull();
  });

  it('may take for ever where no bound is set', () => {
    const look = watch(0);
    look(0, 7, { running: 1 });
    expect(look(1e9, 7, { running: 1 })).toBeNull();
  });
});
