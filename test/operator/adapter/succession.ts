import type { AdapterDeps } from '../../../operator/adapter/deps.ts';
import { Places } from '../../../operator/adapter/places.ts';
import type { Publication } from '../../../operator/adapter/publish/publication.ts';
import { RevisionPublisher } from '../../../operator/adapter/publish/publisher.ts';
import { reconcile } from '../../../operator/adapter/reconcile.ts';
import { Records } from '../../../operator/adapter/records.ts';
import { Tombstones } from '../../../operator/adapter/tombstones.ts';
import { Vigil } from '../../../operator/adapter/vigil.ts';
import type { LoraAdapter, LoraAdapterStatus } from '../../../operator/api/lora-adapter.ts';
import { silentLog } from '../../../operator/kube/log.ts';
import { ADAPTER_INDEXES, type AdapterIndex } from '../../../operator/placement/lookup.ts';
import type { Pod } from '../../../operator/pods/pod.ts';
import type { Spool } from '../../../operator/spool/spool.ts';
import { LorikeetError } from '../../../server/contract/errors.ts';
import { Serial } from '../../../server/transfer/serial.ts';
import { digestOf, goodAdapter } from '../../support/adapter-files.ts';
import { FakeClock } from '../kube/fake-clock.ts';
import { type Effects, InProcessPod, linkTo } from './in-process-pod.ts';
import { POOL_KEY, pushedAdapter, serverPool } from './objects.ts';

const KEY = 'lora/policy';
const FOREVER = new Promise<never>(() => {});

/** Contents that pushes go back and forth between. */
export const CONTENTS = [1, 2, 3].map((seed) => {
  const files = goodAdapter(seed);
  return { files, digest: digestOf(files), config: JSON.parse(files.config.toString('utf8')) as unknown };
});

/** Pods and an API server that outlive operators, of which one at a time leads. */
export class Succession {
  readonly pods: InProcessPod[];
  readonly clock = new FakeClock();
  adapter: LoraAdapter = pushedAdapter('policy');
  operator: MortalOperator;
  #term = 1;

  constructor(pods: number) {
    this.pods = Array.from({ length: pods }, (_, index) => new InProcessPod(`pod-${index}`));
    this.operator = new MortalOperator(this, this.#term);
  }

  /** The leader is gone at once, with all that it knew; the next begins. */
  succeed(): void {
    this.operator.kill();
    this.#term += 1;
    this.operator = new MortalOperator(this, this.#term);
  }

  served(): (string | null)[] {
    return this.pods.map((pod) => pod.currentOf('policy'));
  }
}

export type Outcome = 'acknowledged' | 'refused' | 'unknown';

/** A whole operator for one adapter that may be told to end after so many half effects. */
export class MortalOperator {
  readonly #world: Succession;
  readonly #deps: AdapterDeps;
  readonly #publisher: RevisionPublisher;
  readonly #died = Promise.withResolvers<'unknown'>();
  #leftToDo = Number.POSITIVE_INFINITY;
  #pending: LoraAdapterStatus | null = null;

  constructor(world: Succession, term: number) {
    this.#world = world;
    const links = world.pods.map((pod) => linkTo(pod, this.#effects));
    this.#deps = depsOf(world, { term, links, write: (status) => this.#write(status) });
    this.#publisher = new RevisionPublisher(this.#deps);
  }

  get isDead(): boolean {
    return this.#leftToDo <= 0;
  }

  /** An effect counts twice: when it happens, and when its answer arrives. */
  killAfter(halfEffects: number): void {
    this.#leftToDo = halfEffects;
    if (halfEffects === 0) this.kill();
  }

  kill(): void {
    this.#leftToDo = 0;
    this.#died.resolve('unknown');
  }

  async push(content: number, step: number | null, missed: number | null): Promise<Outcome> {
    return await Promise.race([outcomeOf(this.#push(content, step, missed)), this.#died.promise]);
  }

  /** To contents that were pushed before, where they are kept. */
  async rollback(content: number): Promise<Outcome> {
    const { signal } = new AbortController();
    const to = CONTENTS[content]?.digest;
    const who = { namespace: 'lora', name: 'policy', askedBy: 'trainer' };
    const rollingBack = this.#publisher.rollback({ ...who, to, expectCurrent: null, signal });
    return await Promise.race([outcomeOf(rollingBack), this.#died.promise]);
  }

  async reconcile(): Promise<void> {
    const { signal } = new AbortController();
    await Promise.race([reconcile(this.#deps, KEY, signal), this.#died.promise]);
  }

  /** The API server has what was written last. */
  flushStatus(): void {
    if (this.#pending === null || this.isDead) return;
    this.#world.adapter = { ...this.#world.adapter, status: this.#pending };
    this.#pending = null;
  }

  async #push(content: number, step: number | null, missed: number | null): Promise<void> {
    const { files, digest, config } = CONTENTS[content] as (typeof CONTENTS)[number];
    const { pods, fence } = this.#publisher.context('lora', 'policy');
    const { signal } = new AbortController();
    const missing = missed === null ? null : this.#world.pods[missed]?.name;
    const stage = async (pod: Pod) => {
      try {
        if (pod.name === missing) throw new LorikeetError('timeout', 'missed');
        const options = { size: files.tensors.length, config, step, fence, signal };
        await pod.client.upload('policy', files.tensors, options);
        return { pod, ok: true, error: null, ms: 1 };
      } catch (cause) {
        const error = cause instanceof LorikeetError ? cause : new LorikeetError('pod_failed', String(cause));
        return { pod, ok: false, error, ms: 1 };
      }
    };
    const staged = await Promise.all(pods.map(stage));
    const shape = { bytes: files.tensors.length, rank: 8, targetModules: ['q_proj', 'v_proj'] };
    const how: Pick<Publication, 'wait' | 'ifMatch' | 'pushedBy'> = {
      wait: 'active',
      ifMatch: null,
      pushedBy: 'trainer',
    };
    const what = {
      namespace: 'lora',
      name: 'policy',
      servedName: 'policy',
      digest,
      config,
      step,
      staged,
      signal,
    };
    await this.#publisher.publish({ ...what, ...shape, ...how });
  }

  readonly #effects: Effects = async (act) => {
    await this.#tick();
    try {
      return await act();
    } finally {
      await this.#tick();
    }
  };

  #tick(): Promise<void> {
    if (this.isDead) return FOREVER;
    this.#leftToDo -= 1;
    if (!this.isDead) return Promise.resolve();
    this.#died.resolve('unknown');
    return FOREVER;
  }

  #write(status: LoraAdapterStatus): void {
    if (!this.isDead) this.#pending = structuredClone(status);
  }
}

function outcomeOf(order: Promise<unknown>): Promise<Outcome> {
  return order.then(
    (): Outcome => 'acknowledged',
    (error): Outcome => {
      if (!(error instanceof LorikeetError)) throw error;
      // Whoever is told that pods failed cannot know whether the revision was taken.
      return error.code === 'pod_failed' ? 'unknown' : 'refused';
    },
  );
}

interface View {
  term: number;
  links: Pod[];
  write: (status: LoraAdapterStatus) => void;
}

function depsOf(world: Succession, { term, links, write }: View): AdapterDeps {
  const { clock } = world;
  const startedAtMs = clock.monotonicMs();
  const adapters = {
    get: (key: string) => (key === KEY ? world.adapter : undefined),
    list: () => [world.adapter],
    by: (index: AdapterIndex, value: string) =>
      [world.adapter].filter((adapter) => ADAPTER_INDEXES[index](adapter) === value),
    versionOf: () => 0,
  };
  const pool = serverPool(1);
  const deps: Partial<AdapterDeps> = {
    adapters,
    pools: { get: (key) => (key === POOL_KEY ? pool : undefined), list: () => [pool] },
    standing: () => 'allowed',
    fleet: {
      podsOf: () => links,
      formerOf: () => [],
      followedMs: () => clock.monotonicMs() - startedAtMs,
      whenState: async (pod, satisfies) => pod.state !== null && satisfies(pod.state),
    },
    spool: memorySpool(),
    leader: { leading: { term } },
    records: new Records(),
    places: new Places(),
    vigil: new Vigil(clock),
    mutexes: new Serial(),
    tombstones: new Tombstones(),
    status: { write: (_object, status) => write(status as LoraAdapterStatus) },
    events: { event() {} },
    requeue() {},
    requeuePool() {},
    metrics: { phase() {}, swap() {}, failure() {}, loaded() {}, removed() {} },
    pushUrl: null,
    // Its pods are in this process, without addresses.
    relayFrom: Number.POSITIVE_INFINITY,
    clock,
    random: () => 0,
    log: silentLog,
  };
  return deps as AdapterDeps;
}

/** Lost with its process. */
function memorySpool(): Spool {
  const kept = new Map<string, { config: unknown; body: Buffer }>();
  const spool = {
    pin() {},
    unpin() {},
    open(digest: string) {
      const found = kept.get(digest);
      if (found === undefined) return null;
      const { config, body } = found;
      return {
        config,
        step: null,
        size: body.length,
        stream: async function* () {
          yield body;
        },
      };
    },
    begin() {
      const parts: Uint8Array[] = [];
      return {
        write: async (chunk: Uint8Array) => void parts.push(chunk),
        commit: async (digest: string, { config }: { config: unknown }) =>
          void kept.set(digest, { config, body: Buffer.concat(parts) }),
        abort: async () => {},
      };
    },
  };
  return spool as unknown as Spool;
}
