import { PodUnreachable } from '../../../server/transfer/unreachable.ts';
import type { Clock } from '../../kube/clock.ts';
import type { Pod } from '../../pods/pod.ts';

const LAGGARD_MS = 3_000;
const LAGGARD_FACTOR = 3;

type Caller = { clock: Clock; signal: AbortSignal };

/**
 * Calls all pods at once; `call` tells whether it succeeded. Once the first pod has, the others get three times as long
 * as it took, at least 3 s. Then their calls are cut and the pods left alone for a while: one that hangs holds up nobody.
 */
export async function callAll(
  pods: readonly Pod[],
  call: (pod: Pod, signal: AbortSignal) => Promise<boolean>,
  { clock, signal }: Caller,
): Promise<boolean[]> {
  const laggards = new AbortController();
  const life = AbortSignal.any([signal, laggards.signal]);
  const startMs = clock.monotonicMs();
  let cancel: (() => void) | null = null;
  const cutOthers = () => {
    const leftMs = Math.max(LAGGARD_MS, LAGGARD_FACTOR * (clock.monotonicMs() - startMs));
    const message = `no answer within ${Math.round(leftMs)} ms after another pod's`;
    return clock.after(leftMs, () => laggards.abort(new PodUnreachable(message)));
  };
  try {
    return await Promise.all(
      pods.map(async (pod) => {
        const succeeded = await call(pod, life);
        if (succeeded) cancel ??= cutOthers();
        else if (laggards.signal.aborted) pod.client.breaker.suspect();
        return succeeded;
      }),
    );
  } finally {
    (cancel as (() => void) | null)?.();
  }
}
