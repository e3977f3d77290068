import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { adminUrl, ask, fixtureAdapter, push, pushUrl, stream } from '../e2e/client.ts';
import { BUCKET, pushedAdapter, storedAdapter } from '../e2e/manifests.ts';
import type { SeenPod } from '../e2e/objects.ts';
import { NAMESPACE, POOL, ROOT, World, type WorldOptions } from '../e2e/world.ts';
import { jobsOf, PodMonitor, ScrapedPod } from './monitors.ts';
import { type Prometheus, startPrometheus } from './prometheus.ts';

const DEFINITIONS = ['podmonitors', 'servicemonitors'].map((name) =>
  join(ROOT, `test/cluster/fixtures/prometheus-operator/${name}.yaml`),
);
const SERVERS = 2;
const QUESTIONS = ['List the name of all songs from Lima.', 'List the name of all players from Lima.'];
const MODELS = [POOL, 'sql', 'live', 'live'];
const TOKENS = 48;

export interface ObservedOptions extends WorldOptions {
  /** Folder of Prometheus. */
  folder: string;
  scrapeSeconds: number;
  /** Between a push and the next. */
  pushEveryMs: number;
  /** Requests at a time. */
  clients: number;
}

/** A world with both charts' monitors, a Prometheus that scrapes what they choose, clients and a trainer. */
export class ObservedWorld {
  readonly world: World;
  readonly prometheus: Prometheus;
  readonly #options: ObservedOptions;
  readonly #servers: SeenPod[];
  readonly #ending = new AbortController();
  readonly #work: Promise<void>[] = [];
  /** Of the latest push that was taken. */
  step = 0;

  private constructor(world: World, prometheus: Prometheus, servers: SeenPod[], options: ObservedOptions) {
    this.world = world;
    this.prometheus = prometheus;
    this.#servers = servers;
    this.#options = options;
  }

  static async start(options: ObservedOptions): Promise<ObservedWorld> {
    const world = await World.start(options);
    try {
      for (const file of DEFINITIONS)
        await world.plane.kubectl(['apply', '--server-side', '-f', '-'], await readFile(file, 'utf8'));
      const crds = ['crd/podmonitors.monitoring.coreos.com', 'crd/servicemonitors.monitoring.coreos.com'];
      await world.plane.kubectl(['wait', '--for=condition=Established', ...crds]);
      await world.applyCharts({ ...options, servers: SERVERS, observed: true });
      await world.untilPodsReady(SERVERS, 1);
      const { folder, scrapeSeconds } = options;
      const prometheus = await startPrometheus({ folder, scrapeSeconds, jobs: await scrapeJobs(world) });
      return new ObservedWorld(world, prometheus, await world.servers(), options);
    } catch (error) {
      await world.stop();
      throw error;
    }
  }

  /** Adapters, then clients and a trainer that go on until the end. */
  async load(): Promise<void> {
    const { world } = this;
    const { tensors, config } = await fixtureAdapter('sql');
    await world.store.put(BUCKET, 'sql/adapter_model.safetensors', tensors);
    await world.store.put(BUCKET, 'sql/adapter_config.json', config);
    await world.apply(storedAdapter('sql', world.store.endpoint));
    // Nobody has put anything there: it fails, and is tried again.
    await world.apply(storedAdapter('missing', world.store.endpoint));
    await world.apply(pushedAdapter('live'));
    await world.allowPush('trainer');
    const token = await world.tokenFor('trainer', 'lorikeet-push');
    await world.untilReady('sql');
    await world.untilAdapter('live', 'seen', ({ conditions }) => conditions.Ready !== undefined);
    const trainer = await this.#trainer(token);
    await trainer();
    this.#go(trainer, this.#options.pushEveryMs);
    for (let client = 0; client < this.#options.clients; client += 1) this.#go(this.#client(client), 20);
    this.#go(() => this.#stranger(), 1_000);
  }

  async stop(): Promise<void> {
    this.#ending.abort();
    await Promise.all(this.#work);
    await this.prometheus.stop();
    await this.world.stop();
  }

  #go(turn: () => Promise<void>, pauseMs: number): void {
    const run = async () => {
      while (!this.#ending.signal.aborted) {
        await turn();
        await sleep(pauseMs, undefined, { signal: this.#ending.signal }).catch(() => undefined);
      }
    };
    const running = run();
    // It is awaited at the end, and must not end the process before.
    running.catch(() => this.#ending.abort());
    this.#work.push(running);
  }

  /** Pushes with growing steps, each another content; every fourth time an older step, which is refused. */
  async #trainer(token: string): Promise<() => Promise<void>> {
    const { tensors, config } = await fixtureAdapter('pirate');
    const [operator] = await this.world.operators();
    const url = pushUrl(operator?.ip ?? '', NAMESPACE, 'live');
    let turn = 0;
    return async () => {
      turn += 1;
      // The lowest bits of the last number.
      tensors[tensors.length - 4] = turn % 256;
      const isLate = turn % 4 === 0;
      const response = await push(url, { tensors, config }, { token, step: isLate ? 0 : turn });
      if (response.ok) this.step = turn;
      else if (!isLate) throw new Error(`push ${turn}: ${response.status} ${await response.text()}`);
      await response.body?.cancel();
    };
  }

  #client(index: number): () => Promise<void> {
    let turn = index;
    return async () => {
      turn += 1;
      const pod = this.#servers[turn % this.#servers.length] as SeenPod;
      const model = MODELS[turn % MODELS.length] as string;
      const question = QUESTIONS[turn % QUESTIONS.length] as string;
      if (turn % 2 === 0) await ask(pod.ip, model, question);
      else await stream(pod.ip, model, question, { max_tokens: TOKENS, ignore_eos: true }).done;
    };
  }

  /** Asks for an adapter that is not there, and calls an admin API without a token. */
  async #stranger(): Promise<void> {
    const [pod] = this.#servers;
    await ask(pod?.ip ?? '', 'nobody', 'Hi');
    const refused = await fetch(`${adminUrl(pod?.ip ?? '')}/v1/state`);
    await refused.body?.cancel();
  }
}

async function scrapeJobs(world: World) {
  const list = async <T extends z.ZodType>(what: string, item: T): Promise<z.infer<T>[]> => {
    const json = await world.plane.kubectl(['get', what, '-A', '-o', 'json']);
    return z.object({ items: z.array(item) }).parse(JSON.parse(json)).items;
  };
  const jobs = jobsOf(await list('podmonitors', PodMonitor), await list('pods', ScrapedPod));
  const targets = jobs.flatMap((job) => job.static_configs);
  if (targets.length !== SERVERS + 1)
    throw new Error(`Expected ${SERVERS + 1} pods to scrape but the monitors choose ${JSON.stringify(jobs)}`);
  return jobs;
}
