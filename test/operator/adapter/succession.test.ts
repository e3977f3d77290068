import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CONTENTS, Succession } from './succession.ts';

const PODS = 3;
/** Longer than a new operator waits for a pod that says nothing. */
const PATIENCE_MS = 11_000;
const PASSES = 4;

const half = fc.nat({ max: 12 });
const pod = fc.nat({ max: PODS - 1 });
const action = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('push' as const),
      content: fc.nat({ max: CONTENTS.length - 1 }),
      hasStep: fc.boolean(),
      missedBy: fc.option(pod, { freq: 3 }),
      killAfter: fc.option(half, { freq: 3 }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('rollback' as const),
      content: fc.nat({ max: CONTENTS.length - 1 }),
      killAfter: fc.option(half, { freq: 3 }),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('reconcile' as const),
      killAfter: fc.option(half, { freq: 3 }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constantFrom('flush' as const, 'kill' as const, 'wait' as const) }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constantFrom('silence' as const, 'wake' as const), pod }) },
);
type Action = typeof action extends fc.Arbitrary<infer A> ? A : never;

const push = (content: number, missedBy: number | null = null, killAfter: number | null = null): Action => {
  return { kind: 'push', content, hasStep: false, missedBy, killAfter };
};
const rollback = (content: number): Action => ({ kind: 'rollback', content, killAfter: null });
const reconcile: Action = { kind: 'reconcile', killAfter: null };

const EXAMPLES: [Action[], boolean][] = [
  // Status names A as earlier than B, and pods have A again.
  [[push(0), push(1), reconcile, { kind: 'flush' }, push(0)], true],
  // Status names B, and pods have been brought back to A.
  [[push(0), push(1), reconcile, { kind: 'flush' }, rollback(0)], true],
  // The only pod that takes A again has it already: it missed B.
  [[{ kind: 'silence', pod: 0 }, { kind: 'wait' }, push(0), push(1, 2), push(0, 1)], true],
  // The only pod that has B is silent when the next operator looks.
  [
    [
      push(0),
      reconcile,
      { kind: 'flush' },
      { kind: 'silence', pod: 0 },
      { kind: 'silence', pod: 1 },
      push(1),
      { kind: 'silence', pod: 2 },
      { kind: 'wake', pod: 0 },
      { kind: 'wake', pod: 1 },
      { kind: 'kill' },
      { kind: 'wait' },
      reconcile,
    ],
    false,
  ],
];

interface Pushed {
  digest: string;
  step: number | null;
}

/** What pods may serve in the end: the last acknowledged push or rollback, and those after it of which nobody was told how they ended. */
class Trainer {
  #allowed: Pushed[] = [];
  #step = 0;

  get allowed(): (string | null)[] {
    return this.#allowed.length === 0 ? [null] : this.#allowed.map(({ digest }) => digest);
  }

  get isAcknowledged(): boolean {
    return this.#allowed.length > 0;
  }

  /** The step that the last acknowledged push had, where pods can serve nothing else. */
  get step(): number | null {
    return this.#allowed.length === 1 ? (this.#allowed[0] as Pushed).step : null;
  }

  nextStep(): number {
    this.#step += 1;
    return this.#step;
  }

  note(pushed: Pushed, outcome: 'acknowledged' | 'refused' | 'unknown'): void {
    if (outcome === 'acknowledged') this.#allowed = [pushed];
    // Before the first acknowledged push nothing is promised.
    if (outcome === 'unknown' && this.isAcknowledged) this.#allowed.push(pushed);
  }
}

async function act(world: Succession, trainer: Trainer, step: Action): Promise<void> {
  switch (step.kind) {
    case 'push': {
      if (step.killAfter !== null) world.operator.killAfter(step.killAfter);
      const pushed = {
        digest: CONTENTS[step.content]?.digest ?? '',
        step: step.hasStep ? trainer.nextStep() : null,
      };
      trainer.note(pushed, await world.operator.push(step.content, pushed.step, step.missedBy));
      if (step.killAfter !== null) world.succeed();
      return;
    }
    case 'rollback': {
      if (step.killAfter !== null) world.operator.killAfter(step.killAfter);
      const digest = CONTENTS[step.content]?.digest ?? '';
      trainer.note({ digest, step: null }, await world.operator.rollback(step.content));
      if (step.killAfter !== null) world.succeed();
      return;
    }
    case 'reconcile':
      if (step.killAfter !== null) world.operator.killAfter(step.killAfter);
      await world.operator.reconcile();
      if (step.killAfter !== null) world.succeed();
      return;
    case 'flush':
      return world.operator.flushStatus();
    case 'kill':
      return world.succeed();
    case 'wait':
      return await world.clock.advance(PATIENCE_MS);
    default:
      Object.assign(world.pods[step.pod] as object, { silent: step.kind === 'silence' });
  }
}

async function settle(world: Succession): Promise<void> {
  for (let pass = 0; pass < PASSES; pass += 1) {
    await world.operator.reconcile();
    world.operator.flushStatus();
    await world.clock.advance(PATIENCE_MS);
  }
}

/** Some ten seconds: each of the sequences runs whole operators. */
describe('an acknowledged push or rollback', () => {
  it('outlives operators: in the end every pod serves it, or a newer one', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(action, { minLength: 2, maxLength: 24 }),
        fc.boolean(),
        async (actions, dies) => {
          const world = new Succession(PODS);
          const trainer = new Trainer();
          for (const step of actions) await act(world, trainer, step);
          if (dies) world.succeed();
          for (const server of world.pods) server.silent = false;
          await settle(world);
          if (!trainer.isAcknowledged) return;
          const [first, ...others] = world.served();
          expect(trainer.allowed).toContain(first);
          expect(others).toEqual(others.map(() => first));
        },
      ),
      { numRuns: 250, examples: EXAMPLES },
    );
  });
});
