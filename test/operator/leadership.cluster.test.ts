import type { IncomingHttpHeaders } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readFence } from '../../server/contract/headers.ts';
import { digestOf, goodAdapter } from '../support/adapter-files.ts';
import { eventually } from '../support/eventually.ts';
import { pushedAdapter } from './adapter/objects.ts';
import { type OperatorProcess, OperatorWorld, PATIENCE } from './operator-world.ts';

const ADAPTERS = Array.from({ length: 6 }, (_, index) => `policy-${index}`);
const HAND_OVER_MS = 3_000;
/** Longer than the lease and the wait of those who want it. */
const FROZEN_MS = 9_000;
/** Contents that come back, so that fences are needed to tell them apart. */
const SEEDS = [1, 2, 3, 4];

/** One trainer for each adapter; it remembers what it was told. */
class Trainers {
  /** What pods may serve in the end: the last acknowledged, and those after it whose end is not known. */
  readonly allowed = new Map<string, Set<string>>(ADAPTERS.map((name) => [name, new Set()]));
  readonly acknowledgedAtMs: number[] = [];
  readonly refusals = new Map<string, number>();
  readonly #world: OperatorWorld;
  readonly #doors: () => string[];
  #going = true;
  readonly #running: Promise<unknown>;

  constructor(world: OperatorWorld, { doors, fromStep }: { doors: () => string[]; fromStep: number }) {
    this.#world = world;
    this.#doors = doors;
    this.#running = Promise.all(ADAPTERS.map((name, index) => this.#run(name, fromStep, index)));
  }

  async stop(): Promise<void> {
    this.#going = false;
    await this.#running;
  }

  async #run(adapter: string, fromStep: number, index: number): Promise<void> {
    for (let turn = 0; this.#going; turn += 1) {
      const doors = this.#doors();
      const door = doors[(turn + index) % doors.length] as string;
      await this.#push(door, adapter, { seed: SEEDS[turn % SEEDS.length] as number, step: fromStep + turn });
      await sleep(20);
    }
  }

  async #push(door: string, adapter: string, what: { seed: number; step: number }): Promise<void> {
    const digest = digestOf(goodAdapter(what.seed));
    const allowed = this.allowed.get(adapter) as Set<string>;
    const sentAtMs = performance.now();
    const { status, code } = await this.#answer(door, { adapter, ...what });
    if (status === 200 || status === 202) {
      allowed.clear();
      this.acknowledgedAtMs.push(sentAtMs);
    } else this.refusals.set(code, (this.refusals.get(code) ?? 0) + 1);
    // Whoever got no answer, or one of a server that failed, does not know.
    if (status < 400 || status >= 500) allowed.add(digest);
  }

  async #answer(
    door: string,
    what: { adapter: string; seed: number; step: number },
  ): Promise<{ status: number; code: string }> {
    try {
      const response = await this.#world.push(door, what);
      const body = (await response.json()) as { error?: { code: string } };
      return { status: response.status, code: body.error?.code ?? '' };
    } catch {
      return { status: 0, code: 'no answer' };
    }
  }
}

/** Starts an etcd, an API server and operators as processes, and waits for leases to run out: about a minute. */
describe('leadership of operator processes', () => {
  let world: OperatorWorld;
  let fromStep = 1;
  let count = 0;

  beforeAll(async () => {
    world = await OperatorWorld.start({ network: '127.0.5', audit: true });
    for (const name of ADAPTERS) await world.apply(pushedAdapter(name, { metadata: { finalizers: [] } }));
  });

  afterAll(async () => {
    await world?.stop();
  });

  /** The first leads. */
  async function startTwo(): Promise<[OperatorProcess, OperatorProcess]> {
    count += 1;
    const leader = await world.startOperator(`leader-${count}`);
    await world.leaderIs(leader.identity);
    const follower = await world.startOperator(`follower-${count}`);
    await eventually('the follower is ready', PATIENCE, async () =>
      (await fetch(`${follower.metrics}/readyz`)).status === 200 ? true : undefined,
    );
    for (const name of ADAPTERS) {
      await eventually(`${name} is taken up`, PATIENCE, async () =>
        (await world.lora('{.metadata.finalizers}', name)) === '' ? undefined : true,
      );
    }
    return [leader, follower];
  }

  function termOf(headers: IncomingHttpHeaders): number {
    return readFence(headers)?.term ?? Number.POSITIVE_INFINITY;
  }

  /** That pods have been called with. */
  function highestTerm(): number {
    const terms = world.pods.flatMap((pod) => pod.calls.map(({ headers }) => termOf(headers)));
    return Math.max(...terms.filter(Number.isFinite));
  }

  function train(doors: () => string[]): Trainers {
    fromStep += 100_000;
    return new Trainers(world, { doors, fromStep });
  }

  async function untilServed(trainers: Trainers): Promise<void> {
    for (const name of ADAPTERS) {
      const revisions = () => new Set(world.pods.map((pod) => pod.currentOf(name)));
      await eventually(`all pods serve one revision of ${name}`, PATIENCE, () =>
        revisions().size === 1 ? true : undefined,
      );
      expect([...(trainers.allowed.get(name) as Set<string>)]).toContain([...revisions()][0]);
    }
  }

  it('is handed over within three seconds under load, and no acknowledged push is lost', async () => {
    const [leader, follower] = await startTwo();
    const trainers = train(() => [follower.push]);
    await sleep(1_500);
    const stoppedAtMs = performance.now();
    leader.process.kill('SIGTERM');
    expect((await leader.process.exited).code).toBe(0);
    await sleep(2_000);
    await trainers.stop();
    const acknowledged = trainers.acknowledgedAtMs;
    const gapMs = Math.max(
      ...acknowledged.slice(1).map((atMs, index) => atMs - (acknowledged[index] ?? atMs)),
    );
    expect(acknowledged.some((atMs) => atMs > stoppedAtMs)).toBe(true);
    expect(gapMs).toBeLessThan(HAND_OVER_MS);
    await untilServed(trainers);
    await follower.process.stop(10_000);
  });

  it('of a frozen process changes nothing when it goes on', async () => {
    const [leader, follower] = await startTwo();
    const before = train(() => [leader.push, follower.push]);
    await sleep(1_000);
    // In the middle of everything: statuses are due, pushes are under way.
    leader.process.kill('SIGSTOP');
    const frozenAtMs = performance.now();
    await world.leaderIs(follower.identity);
    await sleep(Math.max(0, FROZEN_MS - (performance.now() - frozenAtMs)));
    const term = highestTerm();
    const calls = world.pods.map((pod) => pod.calls.length);
    const resumedAt = new Date();
    leader.process.kill('SIGCONT');
    expect((await leader.process.exited).code).toBe(1);
    const written = (await world.plane.audited()).filter(
      ({ user, receivedAt, uri }) =>
        user.endsWith(`:${leader.identity}`) && receivedAt >= resumedAt && !/reviews|leases/.test(uri),
    );
    expect(written).toEqual([]);
    const toPods = world.pods.flatMap((pod, index) => pod.calls.slice(calls[index]));
    expect(toPods.filter(({ headers }) => termOf(headers) < term).map(({ line }) => line)).toEqual([]);
    await before.stop();
    await untilServed(before);
    await follower.process.stop(10_000);
  });

  it('goes to another one when its process is killed, and no acknowledged push is lost', async () => {
    const [leader, follower] = await startTwo();
    const trainers = train(() =>
      leader.process.exit === null ? [leader.push, follower.push] : [follower.push],
    );
    await sleep(1_000);
    leader.process.kill('SIGKILL');
    const killedAtMs = performance.now();
    await eventually('pushed again', { timeoutMs: 30_000 }, () =>
      trainers.acknowledgedAtMs.some((atMs) => atMs > killedAtMs + 50) ? true : undefined,
    );
    await sleep(1_000);
    await trainers.stop();
    await untilServed(trainers);
    await follower.process.stop(10_000);
  });
});
