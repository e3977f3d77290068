import type { AdapterDeps } from './adapter/deps.ts';
import { reconcile } from './adapter/reconcile.ts';
import { systemClock, within } from './kube/clock.ts';
import type { Elector } from './kube/leader.ts';
import type { Log } from './kube/log.ts';
import type { Fleet } from './pods/fleet.ts';
import type { PoolDeps } from './pool/deps.ts';
import { reconcilePool } from './pool/reconcile.ts';
import type { Queues, Watches } from './watches.ts';

/** How long pods may take to report before the first plan is made without them. */
const HEARD_MS = 5_000;
/** Nobody serves pushes meanwhile. What is not written by then, the next leader finds out and writes. */
const FLUSH_MS = 1_000;

export interface Machine {
  adapterDeps: AdapterDeps;
  poolDeps: PoolDeps;
  /** Writes status and events that are pending. */
  flush: () => Promise<void>;
  log: Log;
  queues: Queues;
  watches: Watches;
  fleet: Fleet;
  elector: Elector;
}

/**
 * Fills the caches, and acts once this process leads. What is returned stops in the other order: first acting, then
 * what is pending is written, then the lease goes back and the caches end.
 */
export function run(machine: Machine, die: (error: unknown, message: string) => void): () => Promise<void> {
  const { queues, watches, fleet, elector, log, adapterDeps, poolDeps, flush } = machine;
  const caching = new AbortController();
  const acting = new AbortController();
  const electing = new AbortController();
  const cached = watches.run(caching.signal);
  // Not before: a leader with empty caches would tell trainers that there is no such adapter.
  const elected = watches.whenSynced().then(
    () => elector.run(electing.signal),
    () => undefined,
  );
  let handling: Promise<unknown> = Promise.resolve();
  act().catch((error) => {
    if (!acting.signal.aborted) die(error, 'the operator cannot go on');
  });
  return stop;

  async function act(): Promise<void> {
    await watches.whenSynced();
    const { adapters, pools, pods } = watches;
    const counts = { adapters: adapters.list().length, pools: pools.list().length, pods: pods.list().length };
    log.info(counts, 'caches filled');
    await elector.whenLeading();
    await fleet.whenHeard(HEARD_MS);
    handling = Promise.all([
      queues.adapters.run((key, signal) => reconcile(adapterDeps, key, signal), acting.signal),
      queues.pools.run((key, signal) => reconcilePool(poolDeps, key, signal), acting.signal),
    ]);
    await handling;
  }

  async function stop(): Promise<void> {
    const reason = new Error('the operator stops');
    acting.abort(reason);
    await handling;
    await within(systemClock, FLUSH_MS, flush());
    electing.abort(reason);
    caching.abort(reason);
    await Promise.all([elected, cached, fleet.close()]);
  }
}
