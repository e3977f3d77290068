import type { ScriptedPod } from '../support/pod/scripted-pod.ts';
import type { Site } from './site.ts';

/** How a run ended, without what is another thing in every run. */
export interface Outcome {
  /** Of the adapter and the pool, and what each pod holds. */
  end: unknown;
  /** By pod and operation: how often it was asked to take, serve or drop a revision. */
  updates: Record<string, number>;
  writes: string[];
  /** Status still names the account that pushed. */
  namesPusher: boolean;
}

/**
 * Members of status that a fault may change for good. Times and durations are those of the run; a new leader counts
 * under another term; how a swap went, and who pushed, only its operator knows until status says it: pods do not.
 */
const VARIES = new Set(['lastTransitionTime', 'at', 'accepted', 'lastSwap', 'pushedBy']);
const PUSHED_BY = /pushed by [^",]+/g;

export async function outcomeOf(site: Site): Promise<Outcome> {
  const [adapter, pool] = await Promise.all([
    site.get('loraadapters', 'policy'),
    site.get('serverpools', 'parrot'),
  ]);
  const pods = Object.fromEntries([...site.pods].map(([name, pod]) => [name, heldBy(pod)]));
  const end = { adapter: adapter?.status ?? null, pool: pool?.status ?? null, pods };
  const text = JSON.stringify(end, (key, value) => (VARIES.has(key) ? undefined : value));
  const plain = text
    .replaceAll(site.namespace, 'NAMESPACE')
    .replaceAll(PUSHED_BY, 'pushed')
    .replaceAll(/127\.\d+\.\d+\.(\d+):\d+/g, 'POD-$1');
  return {
    end: JSON.parse(plain),
    updates: updatesOf(site),
    writes: [...site.writes.lines],
    namesPusher: JSON.stringify(adapter?.status?.desiredRevision ?? null).includes('"pushedBy"'),
  };
}

function heldBy(pod: ScriptedPod): unknown {
  const { adapters, seeded } = pod.registry.state();
  const held = adapters.map(({ name, current, revisions }) => {
    const states = revisions.map(({ digest, state, step }) => ({ digest, state, step }));
    return { name, current, revisions: states.sort((a, b) => (a.digest < b.digest ? -1 : 1)) };
  });
  return { held, seeded };
}

function updatesOf(site: Site): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const [name, pod] of site.pods) {
    for (const { operation } of pod.calls) {
      // A trainer's push and a copy from the spool bring the same bytes.
      const update = operation === 'upload' ? 'stage' : operation;
      if (!['stage', 'activate', 'remove'].includes(update)) continue;
      counts[`${name} ${update}`] = (counts[`${name} ${update}`] ?? 0) + 1;
    }
  }
  return counts;
}

/** More updates than the reference: what is beyond `allowance` of each pod and operation. */
export function redundant(
  updates: Outcome['updates'],
  reference: Outcome['updates'],
  allowance: number,
): string[] {
  return Object.entries(updates)
    .filter(([key, count]) => count > (reference[key] ?? 0) + allowance)
    .map(([key, count]) => `${key}: ${count} times, not ${reference[key] ?? 0}`);
}
