import { expect, it } from 'vitest';
import { churn } from './churn.ts';

// As many requests as these seconds allow, thousands; `npm run soak -- --only churn` makes a million.
it('thousands of requests while names swap: every token is of the revision that is reported for it', {
  timeout: 120_000,
}, async () => {
  const { moves, preemptions, foundTokens } = await churn({ seconds: 20 });
  for (const happened of [moves, preemptions, foundTokens]) expect(happened).toBeGreaterThan(0);
});
