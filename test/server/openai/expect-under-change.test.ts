import { setImmediate } from 'node:timers/promises';
import fc from 'fast-check';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { LorikeetError } from '../../../server/contract/errors.ts';
import { type Expectation, meetsExpectation } from '../../../server/contract/expectation.ts';
import { OpenAiError } from '../../../server/openai/errors.ts';
import { takeIn } from '../../../server/openai/lease.ts';
import type { Generation } from '../../../server/openai/plan.ts';
import { type Bench, bench, put, stage } from '../adapters/bench.ts';

const SEEDS = [1, 2, 3, 4];
const WAIT_MS_MAX = 60_000;
const ROUNDS_MAX = 200;

const scratch = bench();
const DIGESTS = await Promise.all(SEEDS.map((seed) => stage(scratch.registry, 'all', seed)));
const digestOf = (seed: number) => DIGESTS[SEEDS.indexOf(seed)] as string;

const name = fc.constantFrom('sql', 'sql', 'live');
const seed = fc.constantFrom(...SEEDS);
/** Steps count up, as a trainer's do. */
const hasStep = fc.boolean();
const STEP_MAX = 20;
const keep = fc.nat(2);
const expectation: fc.Arbitrary<Expectation> = fc.oneof(
  fc.record({
    kind: fc.constant('revision' as const),
    prefix: fc
      .tuple(seed, fc.integer({ min: 6, max: 64 }))
      .map(([of, length]) => digestOf(of).slice(7, 7 + length)),
  }),
  fc.record({ kind: fc.constant('min_step' as const), step: fc.nat(STEP_MAX) }),
);
const ask = fc.record({
  op: fc.constant('ask' as const),
  name,
  revision: expectation,
  waitMs: fc.constantFrom(0, 10, WAIT_MS_MAX),
  n: fc.integer({ min: 1, max: 3 }),
});
const change = fc.oneof(
  { weight: 5, arbitrary: fc.record({ op: fc.constant('put' as const), name, seed, hasStep }) },
  { weight: 3, arbitrary: fc.record({ op: fc.constant('activate' as const), name, seed, keep }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('evict' as const), seed }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('rollback' as const), name }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('stage' as const), name, seed, hasStep }) },
  {
    weight: 1,
    arbitrary: fc.record({ op: fc.constant('remove' as const), name, seed: fc.option(seed, { freq: 2 }) }),
  },
);
const pause = fc.oneof(
  fc.record({ op: fc.constant('finish' as const) }),
  fc.record({ op: fc.constant('turns' as const), turns: fc.integer({ min: 1, max: 12 }) }),
);
const operation = fc.oneof(
  { weight: 4, arbitrary: change },
  { weight: 3, arbitrary: ask },
  { weight: 3, arbitrary: pause },
);
type Operation = typeof operation extends fc.Arbitrary<infer T> ? T : never;
type Ask = Extract<Operation, { op: 'ask' }>;

/** A pod whose requests are checked in the moment in which they get their leases. */
class World {
  readonly made: Bench = bench({ slots: 2, room: SEEDS.length - 1 });
  readonly wrong: string[] = [];
  pending = 0;
  #steps = 0;
  /** By the seed of the request, which the engine passes through. */
  readonly #asked: Ask[] = [];

  constructor() {
    this.made.engine.onLeased = ({ seed }, digest) => this.#check(this.#asked[seed] as Ask, digest);
  }

  #check({ name, revision }: Ask, digest: string): void {
    const adapter = this.made.registry.state().adapters.find((known) => known.name === name);
    const leased = adapter?.revisions.find((known) => known.digest === digest);
    const mayAnswer =
      leased !== undefined &&
      leased.state !== 'retired' &&
      meetsExpectation(leased, revision) &&
      (revision.kind === 'revision' || adapter?.current === digest);
    if (!mayAnswer) this.wrong.push(`${name} ${JSON.stringify(revision)} ran on ${digest}, ${leased?.state}`);
  }

  apply(operation: Operation): unknown {
    const { registry, engine } = this.made;
    switch (operation.op) {
      case 'ask':
        return this.#track(this.#ask(operation));
      case 'put':
        return this.#track(put(registry, operation.name, operation.seed, this.#step(operation)));
      case 'stage':
        return this.#track(stage(registry, operation.name, operation.seed, this.#step(operation)));
      case 'activate':
        return this.#track(
          registry.activate({ name: operation.name, digest: digestOf(operation.seed), keep: operation.keep }),
        );
      case 'rollback':
        return this.#track(registry.rollback({ name: operation.name }));
      case 'remove':
        return this.#track(
          registry.remove(operation.name, operation.seed === null ? null : digestOf(operation.seed), null),
        );
      case 'evict': {
        const digest = digestOf(operation.seed);
        const slot = engine.snapshot().slots.find(({ revision }) => revision === digest);
        return slot?.leases === 0 && engine.evict(digest);
      }
      case 'finish':
        return engine.running.slice(0, 1).map((id) => engine.finish(id));
      case 'turns':
        return turns(operation.turns).then(() => vi.advanceTimersByTimeAsync(operation.turns));
    }
  }

  #step({ hasStep }: { hasStep: boolean }): number | null {
    return hasStep ? ++this.#steps : null;
  }

  /** Every request gets its end, and every wait its time. */
  async settle(): Promise<void> {
    for (let round = 0; round < ROUNDS_MAX && this.pending > 0; round += 1) {
      for (const id of this.made.engine.running) this.made.engine.finish(id);
      await turns(8);
      if (round % 10 === 9) await vi.advanceTimersByTimeAsync(WAIT_MS_MAX);
    }
  }

  async #ask(asked: Ask): Promise<void> {
    const { native, registry } = this.made;
    const generation = { prompt: [1], seed: this.#asked.push(asked) - 1 } as Generation;
    const { lora, leases } = await takeIn(
      { engine: native, adapters: registry.lookup },
      {
        model: asked.name,
        expect: { revision: asked.revision, waitMs: asked.waitMs },
        policy: 'activation',
        generations: Array.from({ length: asked.n }, () => generation),
      },
      new AbortController().signal,
    );
    if (leases.some(({ digest }) => digest !== lora?.revision))
      this.wrong.push('a response of two revisions');
    for (const { events } of leases) for await (const _ of events);
  }

  #track(running: Promise<unknown>): void {
    this.pending += 1;
    running
      .catch((error: unknown) => {
        if (!(error instanceof OpenAiError || error instanceof LorikeetError)) this.wrong.push(String(error));
      })
      .finally(() => {
        this.pending -= 1;
      });
  }
}

async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn += 1) await setImmediate();
}

beforeEach(() => void vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] }));
afterEach(() => void vi.useRealTimers());

it('whatever happens meanwhile, no request runs on a revision that it does not expect, and each ends', async () => {
  // Seconds: a state of the pod that matters takes some dozen changes.
  await fc.assert(
    fc.asyncProperty(
      fc.array(operation, { minLength: 20, maxLength: 80, size: 'max' }),
      async (operations) => {
        const world = new World();
        for (const operation of operations) await world.apply(operation);
        await world.settle();
        expect(world.wrong).toEqual([]);
        expect(world.pending).toBe(0);
      },
    ),
    { numRuns: 60 },
  );
});
