import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { refusal } from '../support/pod/fault.ts';
import type { CallFault, Operation, ScriptedPod } from '../support/pod/scripted-pod.ts';
import { LIES, type Lie } from './lies.ts';
import { type Course, type Point, reference, runPoints, tell } from './matrix.ts';
import type { ScenarioName } from './scenarios.ts';
import type { Site } from './site.ts';
import { FaultWorld } from './world.ts';

const MATRIX_MS = 600_000;
/** Of a call that failed, and of the one that makes good for it while the operator does not know yet how it ended. */
const ALLOWANCE = 2;
const TIMEOUTS = { shortMs: 1_000, stallMs: 1_000, silenceMs: 1_500, transferMs: 5_000, watchIdleMs: 12_000 };
const SOME_BYTES = 1_000;

const ANY_CALL: Record<string, CallFault> = {
  hang: { kind: 'hang' },
  reset: { kind: 'reset' },
  'a refusal': refusal('internal'),
  'an answer that is none': { kind: 'garbage' },
  'no answer to what was done': { kind: 'lostReply' },
};
const CALL_WITH_BYTES: Record<string, CallFault> = {
  'hang mid-body': { kind: 'hang', afterBytes: SOME_BYTES },
  'reset mid-body': { kind: 'reset', afterBytes: SOME_BYTES },
};
const CALL_WITH_ANSWER: Record<string, CallFault> = {
  'silence within its answer': { kind: 'halfReply', afterBytes: 20, end: 'hang' },
  'reset within its answer': { kind: 'halfReply', afterBytes: 20, end: 'reset' },
};
const BYTES: Record<string, CallFault> = { ...ANY_CALL, ...CALL_WITH_BYTES, ...CALL_WITH_ANSWER };
const ORDER: Record<string, CallFault> = { ...ANY_CALL, ...CALL_WITH_ANSWER };
/** What each operation of pods may meet; that a pod is seeded is confirmed without a body. */
const CALL_FAULTS: Partial<Record<Operation, Record<string, CallFault>>> = {
  ...{ stage: BYTES, upload: BYTES },
  ...{ activate: ORDER, seeded: ANY_CALL, watch: ORDER },
};
const OPERATIONS: Record<'apply' | 'push', Operation[]> = {
  apply: ['stage', 'activate', 'seeded', 'watch'],
  push: ['upload', 'activate', 'seeded', 'watch'],
};

const DISTURBANCES: Record<string, (site: Site) => Promise<void>> = {
  'a pod starts anew at its address': (site) => podOf(site).restart(),
  'all pods start anew': async (site) => {
    for (const pod of site.pods.values()) await pod.restart();
  },
  'two pods take each other’s address': (site) => site.swapAddresses('pod-0', 'pod-1'),
  'another pod has its name and its address': (site) => site.replacePod('pod-0'),
  'another pod has its name and its address, and is empty': async (site) => {
    await Promise.all([podOf(site).restart(), site.replacePod('pod-0')]);
  },
  'two pods take each other’s address, and one starts anew': async (site) => {
    await site.swapAddresses('pod-0', 'pod-1');
    await podOf(site).restart();
  },
};

function podOf(site: Site): ScriptedPod {
  const pod = site.pods.get('pod-0');
  if (pod === undefined) throw new Error('no pod-0');
  return pod;
}

/** Starts an API server and an object store, and some sixty operators: about half a minute. */
describe('an operator', () => {
  let world: FaultWorld;

  beforeAll(async () => {
    world = await FaultWorld.start();
  });
  afterAll(() => world?.stop());

  const pointOf = (name: string, course: Course): Point => ({
    name,
    options: { podTimeouts: TIMEOUTS, ...course },
    allowance: ALLOWANCE,
  });

  /** At a pod that is the first to be asked. */
  function meeting(name: string, operation: Operation, fault: CallFault): Point {
    let pod: ScriptedPod | null = null;
    const arrange = (site: Site) => {
      pod = podOf(site);
      pod.fail(operation, fault);
    };
    const unmet = () => (pod?.met.includes(fault) ? null : `no ${operation} met it`);
    return { ...pointOf(name, { arrange }), unmet };
  }

  /** While the operator waits for the answer to a call. */
  function amid(name: string, operation: Operation, disturb: (site: Site) => Promise<void>): Point {
    let changed: Promise<void> | null = null;
    const arrange = (site: Site) => {
      const act = () => {
        changed = disturb(site);
      };
      podOf(site).fail(operation, { kind: 'act', act });
    };
    const course = { arrange, disturb: async () => void (await changed) };
    const unmet = () => (changed === null ? `no ${operation} met it` : null);
    return { ...pointOf(name, course), loadsAllowed: 1, unmet };
  }

  function lying(name: string, { told, forMs }: Lie): Point {
    let lies = 0;
    let pod: ScriptedPod | null = null;
    const arrange = (site: Site) => {
      pod = podOf(site);
      pod.say((state) => {
        const lie = told(state);
        if (lie !== state) lies += 1;
        if (lies === 1 && forMs !== null) setTimeout(() => pod?.say(null), forMs);
        return lie;
      });
    };
    const unmet = () => (lies === 0 ? 'it never lied' : null);
    return { ...pointOf(name, { arrange, podsLie: true }), unmet };
  }

  it.each<ScenarioName & keyof typeof OPERATIONS>(['apply', 'push'])(
    'comes to the same end whatever a pod does once: %s',
    { timeout: MATRIX_MS },
    async (scenario) => {
      const calls = OPERATIONS[scenario].flatMap((operation) =>
        Object.entries(CALL_FAULTS[operation] ?? {}).map(([name, fault]) =>
          meeting(`${scenario}: ${operation} meets ${name}`, operation, fault),
        ),
      );
      const changes = Object.entries(DISTURBANCES).map(([name, disturb]) => ({
        ...pointOf(`${scenario}: ${name}`, { disturb }),
        loadsAllowed: 1,
      }));
      const midway = OPERATIONS[scenario].flatMap((operation) =>
        Object.entries(DISTURBANCES).map(([name, disturb]) =>
          amid(`${scenario}: at ${operation} ${name}`, operation, disturb),
        ),
      );
      const lies = Object.entries(LIES).map(([name, lie]) => lying(`${scenario}: ${name}`, lie));
      const expected = await reference(world, scenario);
      const results = await runPoints(world, {
        scenario,
        expected,
        points: [...calls, ...changes, ...midway, ...lies],
      });
      tell(`pods, ${scenario}`, results);
      expect(results.filter(({ failures }) => failures.length > 0)).toEqual([]);
      expect(results.filter(({ unmet }) => unmet !== null)).toEqual([]);
    },
  );
});
