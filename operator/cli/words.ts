import { bytesText } from '../pods/words.ts';

const SECOND = 1;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** Since then, as kubectl writes ages: two units while the first is small, one after. */
export function ageText(then: string | undefined, now: Date): string {
  const ms = then === undefined ? Number.NaN : now.getTime() - Date.parse(then);
  if (Number.isNaN(ms)) return '-';
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const pair = (unit: number, name: string, small: number, smallName: string) => {
    const rest = Math.floor((seconds % unit) / small);
    return `${Math.floor(seconds / unit)}${name}${rest > 0 ? `${rest}${smallName}` : ''}`;
  };
  if (seconds < 2 * MINUTE) return `${seconds}s`;
  if (seconds < 10 * MINUTE) return pair(MINUTE, 'm', SECOND, 's');
  if (seconds < 3 * HOUR) return `${Math.floor(seconds / MINUTE)}m`;
  if (seconds < 8 * HOUR) return pair(HOUR, 'h', MINUTE, 'm');
  if (seconds < 2 * DAY) return `${Math.floor(seconds / HOUR)}h`;
  if (seconds < 8 * DAY) return pair(DAY, 'd', HOUR, 'h');
  return `${Math.floor(seconds / DAY)}d`;
}

export function sizeText(bytes: number | null | undefined): string {
  return bytes === null || bytes === undefined ? '-' : bytesText(bytes);
}

export function numberText(value: number | null | undefined): string {
  return value === null || value === undefined ? '-' : String(value);
}

/** Three digits that matter. */
export function roughly(value: number | null | undefined): string {
  if (value === null || value === undefined) return '-';
  if (value === 0) return '0';
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : Math.abs(value) >= 1 ? 2 : 3;
  return Math.abs(value) < 0.001 ? value.toExponential(1) : value.toFixed(digits);
}

/** `models/trainer` for a ServiceAccount, the name itself for anybody else. */
export function accountText(username: string | undefined): string {
  const [, namespace, name] = /^system:serviceaccount:([^:]+):([^:]+)$/.exec(username ?? '') ?? [];
  return name === undefined ? (username ?? '-') : `${namespace}/${name}`;
}

const UNIT_MS: Record<string, number> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 };

/** `30s`, `1m30s`, or `0`; null where it is none of these. */
export function durationMs(text: string): number | null {
  if (text === '0') return 0;
  if (!/^(\d{1,6}(ms|s|m|h))+$/.test(text)) return null;
  return [...text.matchAll(/(\d+)(ms|s|m|h)/g)].reduce(
    (sum, [, number, unit]) => sum + Number(number) * (UNIT_MS[unit as string] ?? 0),
    0,
  );
}
