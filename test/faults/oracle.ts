import { isDeepStrictEqual } from 'node:util';
import { shortDigest } from '../../operator/api/lora-adapter.ts';
import type { ScriptedPod } from '../support/pod/scripted-pod.ts';
import type { Site } from './site.ts';

/** How a run ended, without what is another thing in every run. */
export interface Outcome {
  /** Of the adapter and the pool, and what each pod holds. */
  end: unknown;
  /** By pod and operation: how often it was asked to take, serve or drop a revision. */
  updates: Record<string, number>;
  /** By pod and digest: how often it was packed, and how often it became what the pod serves. */
  loads: Record<string, number>;
  writes: string[];
  /** See Site. */
  refusals: number;
}

/** Times and durations are those of the run, and a new leader counts under another term. */
const VARIES = new Set(['lastTransitionTime', 'at', 'accepted', 'durationMs', 'skewMs']);
const PUSHED_BY = /pushed by [^",]+/g;

/** What a crash may take from status for good, and why. */
const KNOWN: { path: RegExp; why: string }[] = [
  { path: /^adapter\..*\.(pushedBy|by)$/, why: 'who pushed or rolled back is not kept in pods' },
  { path: /^adapter\.lastSwap/, why: 'how a swap went is known only to the operator that did it' },
  {
    path: /^adapter\.previousRevisions/,
    why: 'an earlier revision that was desired for less than a write of status is not named there',
  },
];

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
    loads: loadsOf(site),
    writes: [...site.writes.lines],
    refusals: site.refusals,
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

function loadsOf(site: Site): Record<string, number> {
  const counts: Record<string, number> = {};
  const count = (key: string) => {
    counts[key] = (counts[key] ?? 0) + 1;
  };
  for (const [name, { packed, served }] of site.pods) {
    for (const digest of packed) count(`${name} packs ${shortDigest(digest)}`);
    for (const { digest } of served) count(`${name} serves ${shortDigest(digest)}`);
  }
  return counts;
}

/** More updates than the reference: what is beyond `allowance` of each pod and operation. */
export function redundant(
  updates: Record<string, number>,
  reference: Record<string, number>,
  allowance: number,
): string[] {
  return Object.entries(updates)
    .filter(([key, count]) => count > (reference[key] ?? 0) + allowance)
    .map(([key, count]) => `${key}: ${count} times, not ${reference[key] ?? 0}`);
}

interface Difference {
  path: string;
  text: string;
}

/** Differences from the reference, by JSON path, and the reasons of those that are known. */
export function compare(actual: unknown, expected: unknown): { failures: string[]; known: string[] } {
  const failures: string[] = [];
  const known = new Set<string>();
  for (const { path, text } of differences(actual, expected, [])) {
    const rule = KNOWN.find((candidate) => candidate.path.test(path));
    if (rule === undefined) failures.push(`${path}: ${text}`);
    else known.add(rule.why);
  }
  return { failures, known: [...known] };
}

function differences(actual: unknown, expected: unknown, path: string[]): Difference[] {
  if (isDeepStrictEqual(actual, expected)) return [];
  if (!isObject(actual) || !isObject(expected))
    return [
      { path: path.join('.'), text: `${JSON.stringify(actual)} instead of ${JSON.stringify(expected)}` },
    ];
  const keys = [...new Set([...Object.keys(actual), ...Object.keys(expected)])];
  return keys.flatMap((key) => differences(actual[key], expected[key], [...path, key]));
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}
