import { setImmediate } from 'node:timers/promises';
import fc from 'fast-check';
import type { FastifyInstance } from 'fastify';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import type { GenerateRequest } from '../../../native/types.ts';
import { LorikeetError } from '../../../server/contract/errors.ts';
import { type Expectation, meetsExpectation } from '../../../server/contract/expectation.ts';
import { buildServingApp } from '../../../server/openai/serving-app.ts';
import { goodAdapter } from '../../support/adapter-files.ts';
import { type Bench, bench, received, stage } from '../adapters/bench.ts';
import { standing } from './scripted-server.ts';

const SEEDS = [1, 2, 3, 4];
const WAIT_MS_MAX = 60_000;
const ROUNDS_MAX = 200;
/** Of the request's own in the seed, which the engine passes through; the rest is for its choices. */
const SEEDS_PER_ASK = 16;
/** Tokens are numbers of what the engine said, so that each can be told from all others. */
const TOKEN_MIN = 10;
const TOKEN_MAX = 1000;

const scratch = bench();
const DIGESTS = await Promise.all(SEEDS.map((seed) => stage(scratch.registry, 'all', seed)));
const digestOf = (seed: number) => DIGESTS[SEEDS.indexOf(seed)] as string;

const name = fc.constantFrom('sql', 'sql', 'live');
const seed = fc.constantFrom(...SEEDS);
/** Steps count up, as a trainer's do. */
const hasStep = fc.constantFrom(true, true, true, false);
const STEP_MAX = 20;
const keep = fc.nat(2);
const inFlight = fc.constantFrom('Finish' as const, 'Migrate' as const);
const expectation: fc.Arbitrary<Expectation> = fc.oneof(
  fc.record({
    kind: fc.constant('revision' as const),
    prefix: fc
      .tuple(seed, fc.integer({ min: 6, max: 64 }))
      .map(([of, length]) => digestOf(of).slice(7, 7 + length)),
  }),
  fc.record({ kind: fc.constant('min_step' as const), step: fc.oneof(fc.nat(3), fc.nat(STEP_MAX)) }),
);
const ask = fc.record({
  op: fc.constant('ask' as const),
  name,
  revision: expectation,
  policy: fc.constantFrom('pin', 'latest', 'latest', null),
  stream: fc.boolean(),
  waitMs: fc.constantFrom(0, 10, WAIT_MS_MAX),
  n: fc.integer({ min: 1, max: 3 }),
});
const change = fc.oneof(
  { weight: 5, arbitrary: fc.record({ op: fc.constant('put' as const), name, seed, hasStep, inFlight }) },
  { weight: 3, arbitrary: fc.record({ op: fc.constant('activate' as const), name, seed, keep, inFlight }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constant('evict' as const), seed }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('rollback' as const), name, inFlight }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('stage' as const), name, seed, hasStep }) },
  {
    weight: 1,
    arbitrary: fc.record({ op: fc.constant('remove' as const), name, seed: fc.option(seed, { freq: 2 }) }),
  },
);
const pause = fc.oneof(
  { weight: 1, arbitrary: fc.record({ op: fc.constant('finish' as const) }) },
  {
    weight: 3,
    arbitrary: fc.record({ op: fc.constant('turns' as const), turns: fc.integer({ min: 1, max: 12 }) }),
  },
  { weight: 4, arbitrary: fc.record({ op: fc.constant('step' as const) }) },
);
const operation = fc.oneof(
  { weight: 24, arbitrary: change },
  { weight: 18, arbitrary: ask },
  { weight: 24, arbitrary: pause },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('restart' as const) }) },
);
type Operation = typeof operation extends fc.Arbitrary<infer T> ? T : never;
type Ask = Extract<Operation, { op: 'ask' }>;

/** A server, until it is killed. */
interface Life {
  made: Bench;
  app: FastifyInstance;
}

/** A pod whose requests are checked in the moment in which they get their leases, and token by token when they end. */
class World {
  readonly wrong: string[] = [];
  pending = 0;
  /** Tokens that clients got, and those of a revision that a request had moved to. */
  tokens = 0;
  tokensMoved = 0;
  #life = this.#begin();
  readonly #lives = [this.#life];
  #steps = 0;
  readonly #asked: Ask[] = [];
  /** By the token, what the engine said it under. */
  readonly #said: string[] = [];
  /** The latest step under which a digest was ever sent. */
  readonly #stepOf = new Map<string, number>();

  #begin(): Life {
    const made = bench({ slots: 3, room: SEEDS.length - 1 });
    made.engine.onLeased = (request, digest) => this.#checkLease(made, request, digest);
    made.engine.beforeActivated = () => turns(2);
    made.engine.nextToken = (_, digest) => TOKEN_MIN + this.#said.push(digest) - 1;
    return { made, app: buildServingApp(standing(made.native, made.registry.lookup)) };
  }

  /** One by name may be another while an activation is under way; it must be let go before a token comes of it. */
  #checkLease({ registry }: Bench, { seed, target }: GenerateRequest, digest: string): void {
    if (target.kind === 'adapter') return;
    const { name, revision } = this.#asked[Math.floor(seed / SEEDS_PER_ASK)] as Ask;
    const adapter = registry.state().adapters.find((known) => known.name === name);
    const leased = adapter?.revisions.find((known) => known.digest === digest);
    const mayAnswer =
      leased !== undefined &&
      leased.state !== 'retired' &&
      meetsExpectation(leased, revision) &&
      (revision.kind === 'revision' || adapter?.current === digest);
    if (!mayAnswer) this.wrong.push(`${name} ${JSON.stringify(revision)} ran on ${digest}, ${leased?.state}`);
  }

  apply(operation: Operation): unknown {
    const { registry, engine } = this.#life.made;
    switch (operation.op) {
      case 'ask':
        return this.#track(this.#ask(operation));
      case 'put':
        return this.#track(this.#put(operation));
      case 'stage':
        return this.#track(stage(registry, operation.name, operation.seed, this.#step(operation)));
      case 'activate': {
        const { name, keep, inFlight } = operation;
        return this.#track(registry.activate({ name, digest: digestOf(operation.seed), keep, inFlight }));
      }
      case 'rollback':
        return this.#track(registry.rollback({ name: operation.name, inFlight: operation.inFlight }));
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
      case 'step':
        return this.#said.length < TOKEN_MAX && engine.step();
      case 'turns':
        return turns(operation.turns).then(() => vi.advanceTimersByTimeAsync(operation.turns));
      case 'restart':
        return this.#restart();
    }
  }

  /** Nothing is left of what the server knew. */
  #restart(): void {
    void this.#life.made.native.close();
    this.#life = this.#begin();
    this.#lives.push(this.#life);
  }

  #step({ seed, hasStep }: { seed: number; hasStep: boolean }): number | null {
    if (!hasStep) return null;
    this.#stepOf.set(digestOf(seed), ++this.#steps);
    return this.#steps;
  }

  async #put(operation: Extract<Operation, { op: 'put' }>): Promise<void> {
    const { registry } = this.#life.made;
    const { name, seed, inFlight } = operation;
    const content = { received: await received(registry, goodAdapter(seed)), allowZeroEffect: false };
    await registry.put({ name, step: this.#step(operation), ...content }, { inFlight });
  }

  /** Every request gets its end, and every wait its time. */
  async settle(): Promise<void> {
    for (let round = 0; round < ROUNDS_MAX && this.pending > 0; round += 1) {
      for (const { engine } of this.#lives.map(({ made }) => made)) {
        for (const id of engine.running) engine.finish(id);
      }
      await turns(8);
      if (round % 10 === 9) await vi.advanceTimersByTimeAsync(WAIT_MS_MAX);
    }
  }

  async #ask(asked: Ask): Promise<void> {
    const seed = SEEDS_PER_ASK * (this.#asked.push(asked) - 1);
    const { name, revision, policy, waitMs, n, stream } = asked;
    const expect = revision.kind === 'revision' ? { revision: revision.prefix } : { min_step: revision.step };
    const { app } = this.#life;
    const lora = { expect, wait_ms: waitMs, ...(policy === null ? {} : { policy }) };
    const more = { max_tokens: 500, return_token_ids: true, seed };
    const payload = { model: name, prompt: [7], n, stream, lora, ...more };
    const { statusCode, body } = await app.inject({ method: 'POST', url: '/v1/completions', payload });
    if (statusCode === 500) this.wrong.push(body);
    const { lora: sent = null } = statusCode === 200 && !stream ? JSON.parse(body) : {};
    for (const [, ids = ''] of body.matchAll(/"token_ids":\[([0-9,]+)\]/g)) {
      const digests = ids.split(',').map((id) => this.#said[Number(id) - TOKEN_MIN] ?? '');
      for (const digest of digests) this.#checkToken(asked, digest);
      if (sent !== null) this.tokensMoved += digests.filter((digest) => digest !== sent.revision).length;
    }
  }

  #checkToken({ name, revision }: Ask, digest: string): void {
    this.tokens += 1;
    if (meetsExpectation({ digest, step: this.#stepOf.get(digest) ?? null }, revision)) return;
    this.wrong.push(`${name} ${JSON.stringify(revision)} got a token of ${digest}`);
  }

  #track(running: Promise<unknown>): void {
    this.pending += 1;
    running
      .catch((error: unknown) => {
        if (!(error instanceof LorikeetError)) this.wrong.push(String(error));
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

it('whatever happens meanwhile, no request runs on a revision that it does not expect, and each ends', {
  timeout: 120_000,
}, async () => {
  // Seconds: a state of the pod that matters takes some dozen changes.
  const seen = { tokens: 0, tokensMoved: 0 };
  await fc.assert(
    fc.asyncProperty(
      fc.array(operation, { minLength: 20, maxLength: 80, size: 'max' }),
      async (operations) => {
        const world = new World();
        for (const operation of operations) await world.apply(operation);
        await world.settle();
        expect(world.wrong).toEqual([]);
        expect(world.pending).toBe(0);
        seen.tokens += world.tokens;
        seen.tokensMoved += world.tokensMoved;
      },
    ),
    { numRuns: 200 },
  );
  expect(seen.tokens).toBeGreaterThan(0);
  expect(seen.tokensMoved).toBeGreaterThan(0);
});
