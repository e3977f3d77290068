import { setTimeout as sleep } from 'node:timers/promises';
import type { V1Probe } from '@kubernetes/client-node';
import { type Place, perform } from './actions.ts';

export interface ProbeWatch {
  probe: V1Probe;
  place: Place;
  /** Called with each change of the verdict, after the thresholds. */
  onVerdict(healthy: boolean, message: string): void;
}

/** Probes with the manifest's timings until the signal is aborted. */
export async function watchProbe(
  { probe, place, onVerdict }: ProbeWatch,
  signal: AbortSignal,
): Promise<void> {
  const periodMs = (probe.periodSeconds ?? 10) * 1_000;
  const timeoutMs = (probe.timeoutSeconds ?? 1) * 1_000;
  let verdict: boolean | null = null;
  let streak = { healthy: false, length: 0 };
  await pause((probe.initialDelaySeconds ?? 0) * 1_000, signal);
  while (!signal.aborted) {
    const failure = await perform(probe, place, timeoutMs).then(
      () => null,
      (error: unknown) => (error instanceof Error ? error.message : String(error)),
    );
    if (signal.aborted) return;
    const healthy = failure === null;
    streak = { healthy, length: streak.healthy === healthy ? streak.length + 1 : 1 };
    const threshold = healthy ? (probe.successThreshold ?? 1) : (probe.failureThreshold ?? 3);
    if (streak.length >= threshold && verdict !== healthy) {
      verdict = healthy;
      onVerdict(healthy, failure ?? '');
    }
    await pause(periodMs, signal);
  }
}

/** Sleeps; returns early, without an error, when the signal is aborted. */
export async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal }).catch((error: unknown) => {
    if (!signal.aborted) throw error;
  });
}
