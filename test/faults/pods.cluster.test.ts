import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { refusal } from '../support/pod/fault.ts';
import type { CallFault, Operation, ScriptedPod } from '../support/pod/scripted-pod.ts';
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

  it.each<ScenarioName & keyof typeof OPERATIONS>(['apply', 'push'])(
    'comes to the same end whatever a pod does once: %s',
    { timeout: MATRIX_MS },
    async (scenario) => {
      const calls = OPERATIONS[scenario].flatMap((operation) =>
        Object.entries(CALL_FAULTS[operation] ?? {}).map(([name, fault]) =>
          meeting(`${scenario}: ${operation} meets ${name}`, operation, fault),
        ),
      );
      const changes = Object.entries(DISTURBANCES).map(([name, disturb]) =>
        pointOf(`${scenario}: ${name}`, { disturb }),
      );
      const expected = await reference(world, scenario);
      const results = await runPoints(world, { scenario, expected, points: [...calls, ...changes] });
      tell(`pods, ${scenario}`, results);
      expect(results.filter(({ failures }) => failures.length > 0)).toEqual([]);
      expect(results.filter(({ unmet }) => unmet !== null)).toEqual([]);
    },
  );
});
