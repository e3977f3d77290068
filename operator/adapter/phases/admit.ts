import { type Draft, lookAgain, NEXT, type Phase } from '../draft.ts';
import { excessOf, excessVerdict } from '../quota.ts';

/** Whoever makes room for others does not tell them. */
export const QUOTA_RETRY_MS = 30_000;

/** Whether the revision, whose size is known now, is within what the namespace may have. What is served stays. */
export const admit: Phase = {
  condition: 'Placed',
  whenSuspended: false,
  async run(draft: Draft, deps) {
    const excess = excessOf(draft, deps, draft.record.target?.bytes ?? 0);
    if (excess === null) return NEXT;
    lookAgain(draft, QUOTA_RETRY_MS);
    return { verdict: excessVerdict(draft, excess), next: false };
  },
};
