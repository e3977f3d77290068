import { setTimeout as sleep } from 'node:timers/promises';
import type { Answer, ApiPlan } from './api-proxy.ts';
import type { Faulty } from './watch-plans.ts';

const BEHIND_MS = 600;

/**
 * An operator that starts anew is shown each kind as it was when the first one started, before there was an adapter; only
 * after a while the watch tells it, event by event, what has happened since.
 */
export function staleAfterRestart(): Faulty {
  const first = new Map<string, Answer>();
  let served = 0;
  const plan: ApiPlan = {
    before: ({ kind, isWatch }) =>
      isWatch && served > 0 && first.has(kind) ? sleep(BEHIND_MS, 'pass' as const) : 'pass',
    after: ({ kind, isList }, answer) => {
      if (!isList) return answer;
      const older = first.get(kind);
      if (older === undefined) first.set(kind, answer);
      else served += 1;
      return older ?? answer;
    },
  };
  return { plan, unmet: () => (served > 0 ? null : 'no list was asked for again') };
}
