import { LorikeetError } from '../../server/contract/errors.ts';
import type { PodOutcome } from '../adapter/publish/publication.ts';
import type { Clock } from '../kube/clock.ts';
import type { Log } from '../kube/log.ts';
import type { Pod } from '../pods/pod.ts';
import type { Spool } from '../spool/spool.ts';
import { SpoolError } from '../spool/spool-error.ts';
import type { ChainOutcome, Upload } from './branch.ts';
import { FanOut, type FanOutLimits, requireHope } from './fan-out.ts';

export interface Resending {
  digest: string;
  upload: Upload;
  /** Monotonic. */
  untilMs: number;
  spool: Pick<Spool, 'open'>;
  limits: FanOutLimits;
  clock: Clock;
  log: Log;
}

/**
 * Serves the pods that were passed over, from the spool: once more in a chain, without those that fell out, and who is
 * passed over then as well on its own. Returns what became of every pod; at least one has the revision.
 */
export async function sendAgain(first: ChainOutcome, resending: Resending): Promise<PodOutcome[]> {
  const { limits } = resending;
  let { outcomes, skipped } = first;
  for (const relayFrom of [limits.relayFrom, Number.POSITIVE_INFINITY]) {
    if (skipped.length === 0) break;
    const next = await send(skipped, { ...resending, limits: { ...limits, relayFrom } });
    outcomes = [...outcomes, ...next.outcomes];
    skipped = next.skipped;
  }
  outcomes = [...outcomes, ...skipped.map(unreached)];
  requireHope({ outcomes, skipped: [] });
  return outcomes;
}

async function send(
  pods: Pod[],
  { digest, upload, untilMs, spool, limits, clock, log }: Resending,
): Promise<ChainOutcome> {
  const revision = spool.open(digest);
  const leftMs = untilMs - clock.monotonicMs();
  if (revision === null || leftMs <= 0) return { outcomes: [], skipped: pods };
  log.info({ pods: pods.length }, 'a push goes once more to pods that were passed over');
  const fanOut = new FanOut(pods, upload, limits, clock);
  try {
    let held: Uint8Array | null = null;
    for await (const block of revision.stream()) {
      if (held !== null) await fanOut.write(held);
      if (!fanOut.isLive) return await fanOut.settled();
      held = block;
    }
    return await fanOut.finish(held ?? new Uint8Array(), digest, untilMs - clock.monotonicMs());
  } catch (error) {
    if (!(error instanceof SpoolError)) throw error;
    return { outcomes: [], skipped: pods };
  } finally {
    fanOut.abort();
  }
}

/** Not the pod's fault: it is served when the adapter is looked at next. */
function unreached(pod: Pod): PodOutcome {
  const error = new LorikeetError(
    'timeout',
    'The pod was passed over: the ones before it in the chain fell out',
  );
  return { pod, ok: false, error, ms: 0 };
}
