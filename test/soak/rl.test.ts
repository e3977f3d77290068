import { expect, it } from 'vitest';
import { runRl, whatFailed } from './rl.ts';

const PATIENCE = { timeout: 120_000 };

// Seconds: a server process, and pushes until every stream has asked in each way. `npm run soak -- --only rl` is longer.
it(
  'pushes without a pause beside streams of all policies: every token is of the revision it names',
  PATIENCE,
  async () => {
    const report = await runRl({ pushes: 50, answers: 5, streams: 8, slots: 40 });
    expect(whatFailed(report)).toEqual([]);
    expect(report.moves).toBeGreaterThan(0);
    // By what was taken back.
    expect(report.refused).toBeGreaterThan(0);
  },
);

it('the same with fewer slots than revisions that run', PATIENCE, async () => {
  const report = await runRl({ pushes: 50, answers: 3, streams: 8, slots: 3 });
  expect(whatFailed(report)).toEqual([]);
});
