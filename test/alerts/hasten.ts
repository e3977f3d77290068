import type { Rules } from './rules.ts';

/** So much faster than in earnest, but no window shorter than what scrapes of every second and a pause of the backoff need. */
const FASTER = 30;
const WINDOW_SECONDS_MIN = 20;
const SECONDS = { s: 1, m: 60, h: 3600, d: 86_400 };

/** The same rules for who cannot wait for minutes: windows are shorter, and what holds need hold for a second only. */
export function hasten({ groups }: Rules): Rules {
  const window = (_: string, count: string, unit: keyof typeof SECONDS) =>
    `[${Math.max(WINDOW_SECONDS_MIN, (Number(count) * SECONDS[unit]) / FASTER)}s]`;
  return {
    groups: groups.map((group) => ({
      ...group,
      rules: group.rules.map((rule) => ({
        ...rule,
        expr: rule.expr.replace(/\[(\d+)([smhd])\]/g, window),
        ...(rule.for === undefined ? {} : { for: '1s' }),
      })),
    })),
  };
}
