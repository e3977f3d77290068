import type { ActivateRequest, Fence } from '../../../server/contract/adapter-api.ts';
import type { Clock } from '../../kube/clock.ts';
import type { Pod } from '../../pods/pod.ts';

export interface SwapResult {
  pod: Pod;
  /** Null: the pod confirmed. */
  error: unknown;
  /** From the order to the reply. */
  ms: number;
}

export interface Swap {
  results: SwapResult[];
  /** Null where no pod confirmed. */
  timing: SwapTiming | null;
}

export interface SwapTiming {
  /** From the first order to the last confirmation. */
  durationMs: number;
  /** From the first confirmation to the last. */
  skewMs: number;
}

export interface SwapOrder {
  servedName: string;
  requestFor(pod: Pod): ActivateRequest;
  fence: Fence;
}

/** The second phase: all pods at once, once the first has brought the revision into each. */
export async function swap(
  pods: readonly Pod[],
  order: SwapOrder,
  clock: Clock,
  signal: AbortSignal,
): Promise<Swap> {
  const startMs = clock.monotonicMs();
  const confirmedMs: number[] = [];
  const results = await Promise.all(
    pods.map(async (pod): Promise<SwapResult> => {
      try {
        await pod.client.activate(order.servedName, order.requestFor(pod), order.fence, signal);
        const nowMs = clock.monotonicMs();
        confirmedMs.push(nowMs);
        return { pod, error: null, ms: nowMs - startMs };
      } catch (error) {
        return { pod, error, ms: clock.monotonicMs() - startMs };
      }
    }),
  );
  if (confirmedMs.length === 0) return { results, timing: null };
  const last = Math.max(...confirmedMs);
  const first = Math.min(...confirmedMs);
  return { results, timing: { durationMs: tenths(last - startMs), skewMs: tenths(last - first) } };
}

/** Milliseconds to one decimal: what follows is noise. */
export function tenths(ms: number): number {
  return Math.round(ms * 10) / 10;
}
