import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { eventually } from '../support/eventually.ts';
import { ask, fixtureAdapter, pushUrl } from './client.ts';
import { pushedAdapter } from './manifests.ts';
import type { SeenPod } from './objects.ts';
import { Trainer } from './trainer.ts';
import { NAMESPACE, SYSTEM, World } from './world.ts';

const QUESTION = 'List the name of all songs from Lima.';
const AWAY_MS = 12_000;
const FROZEN_MS = 30_000;

/**
 * Trainers push while leaders are killed, removed and stopped and the API server goes away: `npm run soak -- --rounds 24`;
 * `--only removed` for the disasters of that name, `--calm 1` for as many seconds of peace before and after each.
 * After each disaster it says how long pushes were out and whether every pod serves the last acknowledged one.
 */
class Soak {
  readonly #world: World;
  readonly #trainers: Map<string, Trainer>;
  #operators: string[];
  #stopped: string | null = null;
  #calmMs = 0;
  lost = 0;

  private constructor(world: World, trainers: Map<string, Trainer>, operators: string[]) {
    this.#world = world;
    this.#trainers = trainers;
    this.#operators = operators;
  }

  static async start(): Promise<Soak> {
    const world = await World.withPool({ operators: 2 });
    const token = await world.tokenFor('trainer', 'lorikeet-push');
    await world.allowPush('trainer');
    const contents = await Promise.all(['pirate', 'sql', 'json'].map(fixtureAdapter));
    const trainers = new Map<string, Trainer>();
    const soak = new Soak(world, trainers, []);
    await soak.#lookForOperators();
    for (const [name, hasSteps] of [
      ['steps', true],
      ['returns', false],
    ] as const) {
      await world.apply(pushedAdapter(name));
      trainers.set(name, new Trainer({ token, contents, hasSteps, url: () => soak.#url(name) }));
    }
    return soak;
  }

  /** `only`: a part of the names of the disasters that strike. */
  async run(rounds: number, only: string, calmMs: number): Promise<void> {
    this.#calmMs = calmMs;
    const disasters = Object.entries(this.#disasters).filter(([name]) => name.includes(only));
    if (disasters.length === 0)
      throw new Error(`Expected a part of ${Object.keys(this.#disasters).join(', ')}`);
    for (let round = 0; round < rounds; round += 1) {
      const [name, strike] = disasters[round % disasters.length] as (typeof disasters)[number];
      await this.#round(`${round + 1} ${name}`, strike);
    }
    const counts = [...this.#trainers].map(([name, { acknowledged }]) => `${name} ${acknowledged}`);
    say(`acknowledged: ${counts.join(', ')}; lost: ${this.lost}`);
  }

  async stop(): Promise<void> {
    await Promise.all([...this.#trainers.values()].map((trainer) => trainer.stop()));
    await this.#world.stop();
  }

  /** Each resolves with the moment from which on pushes should work again soon. */
  readonly #disasters: Record<string, (leader: SeenPod) => Promise<number>> = {
    'leader killed, its container restarts': async ({ name }) => {
      this.#world.node.kill(SYSTEM, name);
      return performance.now();
    },
    'leader removed': async ({ name }) => {
      const atMs = performance.now();
      await this.#world.node.removePodAbruptly(SYSTEM, name);
      return atMs;
    },
    'leader and a server gone': async ({ name }) => {
      const servers = await this.#world.servers();
      const server = servers[Math.floor(Math.random() * servers.length)] as SeenPod;
      const atMs = performance.now();
      await this.#world.node.removePodAbruptly(SYSTEM, name);
      await this.#world.node.removePodAbruptly(NAMESPACE, server.name);
      return atMs;
    },
    'leader stopped': async ({ name, ip }) => {
      // As a Service does with what is not ready.
      this.#stopped = ip;
      await this.#lookForOperators();
      this.#world.node.pause(SYSTEM, name);
      const atMs = performance.now();
      await sleep(FROZEN_MS);
      this.#world.node.resume(SYSTEM, name);
      this.#stopped = null;
      return atMs;
    },
    'API server away': async () => {
      this.#world.plane.signal('kube-apiserver', 'SIGSTOP');
      await sleep(AWAY_MS);
      this.#world.plane.signal('kube-apiserver', 'SIGCONT');
      return performance.now();
    },
    'etcd away': async () => {
      this.#world.plane.signal('etcd', 'SIGSTOP');
      await sleep(AWAY_MS);
      this.#world.plane.signal('etcd', 'SIGCONT');
      return performance.now();
    },
  };

  async #round(name: string, strike: (leader: SeenPod) => Promise<number>): Promise<void> {
    for (const trainer of this.#trainers.values()) {
      trainer.slowestMs = 0;
      trainer.start();
    }
    await sleep(this.#calmMs * (0.5 + Math.random() / 2));
    const fromMs = await strike(await this.#leader());
    await this.#lookForOperators();
    const told: string[] = [];
    for (const [adapter, trainer] of this.#trainers) {
      const firstMs = await eventually(`${adapter} is pushed to again`, { timeoutMs: 90_000 }, async () => {
        await this.#lookForOperators();
        return trainer.firstAfter(fromMs) ?? undefined;
      });
      told.push(`${adapter} ${((firstMs - fromMs) / 1000).toFixed(1)} s`);
    }
    await sleep(this.#calmMs);
    await Promise.all([...this.#trainers.values()].map((trainer) => trainer.stop()));
    const slowest = Math.max(...[...this.#trainers.values()].map(({ slowestMs }) => slowestMs));
    say(`${name}: pushed again after ${told.join(', ')}; slowest call ${(slowest / 1000).toFixed(1)} s`);
    for (const [adapter, trainer] of this.#trainers) await this.#check(adapter, trainer);
    await this.#world.untilPodsReady(2, 2);
  }

  async #check(adapter: string, { allowed }: Trainer): Promise<void> {
    const served = async () => {
      const answers = (await this.#world.servers()).map(({ ip }) => ask(ip, adapter, QUESTION));
      return new Set((await Promise.all(answers)).map(({ revision }) => revision ?? ''));
    };
    const one = await eventually(`every pod serves the same ${adapter}`, { timeoutMs: 60_000 }, async () => {
      const revisions = await served();
      return revisions.size === 1 ? [...revisions][0] : undefined;
    });
    if (allowed.has(one)) return;
    this.lost += 1;
    say(`LOST: ${adapter} serves ${one}, acknowledged last: ${[...allowed].join(', ')}`);
  }

  async #leader(): Promise<SeenPod> {
    const path = ['get', 'lease', 'lorikeet', '-n', SYSTEM, '-o', 'jsonpath={.spec.holderIdentity}'];
    return await eventually('an operator leads', { timeoutMs: 30_000 }, async () => {
      const holder = await this.#world.plane.kubectl(path);
      return (await this.#world.operators()).find(({ name, terminating }) => name === holder && !terminating);
    });
  }

  async #lookForOperators(): Promise<void> {
    const pods = await this.#world.operators();
    this.#operators = pods.flatMap(({ ip, terminating }) =>
      ip === '' || ip === this.#stopped || terminating ? [] : [ip],
    );
  }

  #url(adapter: string): string {
    const ip = this.#operators[Math.floor(Math.random() * this.#operators.length)] ?? '127.0.0.1';
    return pushUrl(ip, NAMESPACE, adapter);
  }
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '20' },
    only: { type: 'string', default: '' },
    calm: { type: 'string', default: '3' },
  },
});
const soak = await Soak.start();
try {
  await soak.run(Number(values.rounds), values.only, Number(values.calm) * 1000);
} finally {
  await soak.stop();
}
process.exitCode = soak.lost > 0 ? 1 : 0;
