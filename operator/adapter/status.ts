import { truncateMessage, type Verdict } from '../api/conditions.ts';
import { POD_ERRORS_MAX, type PodError } from '../api/lora-adapter.ts';
import { podNames, podsText } from '../pods/words.ts';
import { timestamp } from './desired.ts';
import type { Row } from './plan.ts';

export type { Verdict } from '../api/conditions.ts';

/** The Loaded condition that a plan's rows amount to. Pure. */
export function loadedVerdict(rows: readonly Row[]): Verdict {
  const failed = rows.filter((row) => row.attempt !== null && row.observed !== 'current');
  if (failed.length > 0) {
    const first = failed.toSorted(bySeverity)[0] as Row;
    const others = failed.length > 1 ? ` (and ${failed.length - 1} more)` : '';
    const isAll = (code: string) => failed.every((row) => row.attempt?.code === code);
    if (isAll('Unreachable')) {
      const message = `${first.pod.name}${others}: ${first.attempt?.message}`;
      return { status: 'Unknown', reason: 'PodsUnreachable', message };
    }
    const reason = isAll('no_capacity') ? 'NoCapacity' : 'PodsFailed';
    const message = `${first.pod.name}${others}: ${first.attempt?.code}: ${first.attempt?.message}`;
    return { status: 'False', reason, message };
  }
  const silent = rows.filter((row) => row.observed === 'unreachable' && row.pod.error !== null);
  if (silent.length > 0) {
    const names = podNames(silent.map((row) => row.pod.name));
    const message = `${names}: ${silent[0]?.pod.error ?? 'no answer'}`;
    return { status: 'Unknown', reason: 'PodsUnreachable', message };
  }
  const lacking = rows.filter((row) => row.observed === 'absent' || row.observed === 'unreachable');
  if (lacking.length > 0) {
    const waiting = rows.filter(({ action }) => action === 'hold').length;
    const names = podNames(lacking.map(({ pod }) => pod.name));
    const message = `Not in ${names} yet; ${podsText(waiting)} with it wait for that.`;
    return { status: 'False', reason: 'Loading', ...(waiting > 0 && { message }) };
  }
  return { status: 'True', reason: 'Loaded' };
}

/** At most POD_ERRORS_MAX, worst first: refusals, then failures that are tried again, then silence. Pure. */
export function podErrorsOf(rows: readonly Row[]): PodError[] {
  return rows
    .filter((row) => (row.attempt === null ? row.pod.error !== null : row.observed !== 'current'))
    .toSorted(bySeverity)
    .slice(0, POD_ERRORS_MAX)
    .map(podError);
}

function podError({ pod, attempt }: Row): PodError {
  const name = pod.name;
  if (attempt === null) {
    return { name, reason: 'Unreachable', message: truncateMessage(pod.error ?? 'no answer') };
  }
  const error = { name, reason: attempt.code, message: truncateMessage(attempt.message) };
  return attempt.terminal ? error : { ...error, retryAt: timestamp(attempt.retryAt) };
}

function bySeverity(a: Row, b: Row): number {
  return severity(b) - severity(a) || (a.pod.name < b.pod.name ? -1 : 1);
}

function severity({ attempt }: Row): number {
  if (attempt === null) return 0;
  return attempt.terminal ? 2 : 1;
}
