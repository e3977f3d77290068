import type { AdapterState } from '../../server/contract/adapter-api.ts';
import { rootMessage } from '../../server/transfer/unreachable.ts';
import { type LoraAdapter, servedNameOf } from '../api/lora-adapter.ts';
import { poolKeyOf } from '../api/names.ts';
import { type ServerPool, UNMANAGED_MAX } from '../api/server-pool.ts';
import { keyOf } from '../kube/resource.ts';
import type { Pod } from '../pods/pod.ts';
import { podNames } from '../pods/words.ts';
import { announcedOf } from './announced.ts';
import type { PoolDeps } from './deps.ts';

export interface Unowned {
  pod: Pod;
  name: string;
  /** An operator brought it: its object is gone. Otherwise somebody put it there by hand. */
  isOrphan: boolean;
}

interface PoolContents {
  pool: ServerPool;
  pods: readonly Pod[];
  adapters: readonly LoraAdapter[];
}

/** Adapters that pods report and no object serves. Whatever carries an operator's fence once had an object. Pure. */
export function unownedIn(
  { pods, adapters }: Pick<PoolContents, 'pods' | 'adapters'>,
  isBuried: (name: string) => boolean,
): Unowned[] {
  const owned = new Set(adapters.map(servedNameOf));
  return pods.flatMap((pod) =>
    (pod.reachable ? (pod.state?.adapters ?? []) : [])
      .filter((adapter) => !owned.has(adapter.name) && !isDraining(adapter))
      .map(({ name, fence }) => ({ pod, name, isOrphan: fence !== null || isBuried(name) })),
  );
}

/** It has been removed; running requests still hold it. */
function isDraining({ current, revisions }: AdapterState): boolean {
  return current === null && revisions.every((revision) => revision.state === 'retired');
}

/** Removes orphans, and the rest where the pool says Prune; `left` is what it says to report, as much as status takes. */
export async function cleanPods(
  deps: PoolDeps,
  contents: PoolContents,
  signal: AbortSignal,
): Promise<{ left: Unowned[]; failed: boolean }> {
  const { pool } = contents;
  const poolKey = keyOf(pool);
  const found = unownedIn(contents, (name) => deps.isBuried(poolKey, name));
  const prunes = pool.spec.unmanaged === 'Prune';
  const doomed = found.filter(({ isOrphan }) => isOrphan || prunes);
  const stays = found.filter((item) => !doomed.includes(item));
  reportUnmanaged(deps, pool, stays);
  const left = stays.slice(0, UNMANAGED_MAX);
  if (doomed.length === 0) return { left, failed: false };
  // A cache may be behind; what is destroyed is looked up first.
  const letsOthers = (pool.spec.tenancy?.namespaces?.from ?? 'Same') !== 'Same' && deps.watchesAll;
  const live = await deps.liveAdapters(letsOthers ? undefined : pool.metadata.namespace, signal);
  const isOwner = (adapter: LoraAdapter) =>
    poolKeyOf(adapter) === poolKey && deps.standing(adapter) !== 'refused';
  const owners = new Set(live.filter(isOwner).map(servedNameOf));
  const removed = await Promise.all(
    doomed.filter(({ name }) => !owners.has(name)).map((item) => removeUnowned(deps, pool, item, signal)),
  );
  return { left, failed: removed.includes(false) };
}

async function removeUnowned(
  deps: PoolDeps,
  pool: ServerPool,
  item: Unowned,
  signal: AbortSignal,
): Promise<boolean> {
  const { pod, name, isOrphan } = item;
  const { leading } = deps.leader;
  if (leading === null) return false;
  const about = { pool: keyOf(pool), pod: pod.name, name };
  try {
    const fence = { term: leading.term, sequence: deps.nextSequence() };
    await pod.client.remove(name, null, fence, signal);
    deps.metrics.removed(isOrphan ? 'orphaned' : 'pruned');
    await deps.fleet.whenState(
      pod,
      (state) => !state.adapters.some((adapter) => adapter.name === name),
      1_000,
    );
    const why = isOrphan ? 'its object is gone' : 'no object owns it';
    deps.log.info({ ...about, reason: why }, 'unowned adapter removed');
    deps.events.event(pool, 'Normal', 'Pruned', `${name} from ${pod.name}: ${why}`);
    return true;
  } catch (error) {
    signal.throwIfAborted();
    deps.log.warn({ ...about, reason: rootMessage(error) }, 'unowned adapter could not be removed');
    return false;
  }
}

function reportUnmanaged(deps: PoolDeps, pool: ServerPool, stays: readonly Unowned[]): void {
  const known = new Set(pool.status?.unmanaged?.map(({ pod, name }) => `${pod} ${name}`));
  const news = stays.filter(({ pod, name }) => !known.has(`${pod.name} ${name}`));
  const names = [...new Set(news.map(({ name }) => name))];
  if (names.length === 0) return;
  const pods = podNames([...new Set(news.map(({ pod }) => pod.name))]);
  const message = `${names.slice(0, 5).join(', ')} on ${pods}: no LoraAdapter owns ${names.length === 1 ? 'it' : 'them'}`;
  const announced = announcedOf(deps.announced, pool);
  if (announced.unmanaged === message) return;
  announced.unmanaged = message;
  deps.log.warn({ pool: keyOf(pool), names: names.slice(0, 5), pods }, 'unmanaged adapters');
  deps.events.event(pool, 'Warning', 'UnmanagedAdapters', message);
}
