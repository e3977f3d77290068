import type { ActivateRequest, Fence } from '../../server/contract/adapter-api.ts';
import type { Clock } from '../kube/clock.ts';
import type { Pod } from '../pods/pod.ts';

export interface SwapResult {
  pod: Pod;
  /** Null: the pod confirmed. */
  error: unknown;
  /** From the order to the reply. */
  ms: number;
}

export interface Swap {
  results: SwapResult[];
  /** From the first order to the last confirmation; null where no pod confirmed. */
  durationMs: number | null;
  /** From the first confirmation to the last. */
  skewMs: number | null;
}

export interface SwapOrder {
  servedName: string;
  request: ActivateRequest;
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
        await pod.client.activate(order.servedName, order.request, order.fence, signal);
        const nowMs = clock.monotonicMs();
        confirmedMs.push(nowMs);
        return { pod, error: null, ms: nowMs - startMs };
      } catch (error) {
        return { pod, error, ms: clock.monotonicMs() - startMs };
      }
    }),
  );
  if (confirmedMs.length === 0) return { results, durationMs: null, skewMs: null };
  const last = Math.max(...confirmedMs);
  return { results, durationMs: last - startMs, skewMs: last - Math.min(...confirmedMs) };
}
