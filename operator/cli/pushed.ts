import { z } from 'zod';
import { msText, podsText } from '../pods/words.ts';
import { table } from './table.ts';
import { numberText, sizeText } from './words.ts';

/** The answer of a push and of a rollback: operator/push/push.ts. */
export const Pushed = z.looseObject({
  revision: z.string(),
  step: z.number().nullable(),
  bytes: z.number(),
  noop: z.boolean(),
  pods: z.array(
    z.looseObject({
      name: z.string(),
      state: z.string(),
      ms: z.number(),
      error: z.looseObject({ code: z.string(), message: z.string() }).optional(),
    }),
  ),
  swap: z.object({ durationMs: z.number(), skewMs: z.number() }).nullable(),
  timings: z.record(z.string(), z.number()),
});
export type Pushed = z.infer<typeof Pushed>;

/** What became of it, and pod by pod where it is not everywhere. */
export function pushedText({ step, bytes, pods, swap, timings }: Pushed, wait: 'active' | 'staged'): string {
  const isThere = (state: string) => state === 'active' || (state === 'staged' && wait === 'staged');
  const there = pods.filter(({ state }) => isThere(state));
  const verb = wait === 'staged' ? 'hold it' : 'serve it';
  const parts = [
    ...(step === null ? [] : [`step ${numberText(step)}`]),
    sizeText(bytes),
    `${msText(timings.totalMs ?? 0)} in all`,
    ...(swap === null ? [] : [`swapped in ${msText(swap.durationMs)}`, `skew ${msText(swap.skewMs)}`]),
  ];
  const line = `${there.length} of ${podsText(pods.length)} ${verb}: ${parts.join(', ')}\n`;
  if (there.length === pods.length) return line;
  const rows = pods.map(({ name, state, ms, error }) => {
    return [name, state, msText(ms), error === undefined ? ' ' : `${error.message} (${error.code})`];
  });
  return `${line}\n${table(['POD', 'STATE', 'TOOK', 'WHY'], rows)}`;
}
