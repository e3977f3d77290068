import type { PodState } from '../../server/contract/adapter-api.ts';
import { causesOf, rootMessage } from '../../server/transfer/unreachable.ts';
import { backoffMs, type Clock, pause } from '../kube/clock.ts';
import type { Log } from '../kube/log.ts';
import type { PodClient } from './client.ts';
import { TokenNotFound } from './errors.ts';
import { changedAdapters, type FleetChange, hasFreed, type Pod } from './pod.ts';

const RETRY = { baseMs: 200, maxMs: 5_000 };
const WATCH_MS_MIN = 1_000;

type Identity = Pick<Pod, 'key' | 'name' | 'namespace' | 'uid' | 'ip' | 'poolKey' | 'adminUrl' | 'zone'>;

export interface LinkOptions {
  identity: Identity;
  client: PodClient;
  life: AbortController;
  clock: Clock;
  random: () => number;
  log: Log;
  onChange: (change: FleetChange) => void;
}

/**
 * Follows one pod for as long as it is in the pool:
 *
 *   connect ─▶ first state ─▶ reachable ──cut, idle──▶ connect at once ─▶ …
 *      ▲                                                   │ refused, silent
 *      └── 0.2 … 5 s, jittered ◀── unreachable ◀───────────┘
 */
export class PodLink implements Pod {
  readonly key: string;
  readonly name: string;
  readonly namespace: string;
  readonly uid: string;
  readonly ip: string;
  readonly poolKey: string;
  readonly adminUrl: string;
  readonly zone: string | null;
  readonly client: PodClient;
  state: PodState | null = null;
  reachable = false;
  error: string | null = null;
  lacksToken = false;
  /** When its present process was first seen: bounds how long it waits to be seeded. Monotonic. */
  sinceMs: number;
  readonly #options: LinkOptions;
  readonly #heard = Promise.withResolvers<void>();
  readonly #waiters = new Set<() => void>();

  constructor(options: LinkOptions) {
    const { identity } = options;
    this.key = identity.key;
    this.name = identity.name;
    this.namespace = identity.namespace;
    this.uid = identity.uid;
    this.ip = identity.ip;
    this.poolKey = identity.poolKey;
    this.adminUrl = identity.adminUrl;
    this.zone = identity.zone ?? null;
    this.client = options.client;
    this.sinceMs = options.clock.monotonicMs();
    this.#options = options;
  }

  /** Ends when the link is closed. */
  async run(): Promise<void> {
    const { life, clock, random } = this.#options;
    let failures = 0;
    while (!life.signal.aborted) {
      let reported = false;
      const startMs = clock.monotonicMs();
      try {
        for await (const state of this.client.watch(life.signal)) {
          reported = true;
          if (clock.monotonicMs() - startMs > WATCH_MS_MIN) failures = 0;
          this.#accept(state);
        }
      } catch (error) {
        if (life.signal.aborted) return;
        // A watch that has lived was cut, which is no news; one that ends at once is a failure, however it began.
        if (reported && clock.monotonicMs() - startMs > WATCH_MS_MIN) continue;
        failures += 1;
        if (!reported) this.#lost(error);
        await pause(clock, backoffMs(failures, { ...RETRY, random }), life.signal);
      }
    }
  }

  /** Resolves when the pod has reported, or has failed to, or has left. */
  get whenHeard(): Promise<void> {
    return this.#heard.promise;
  }

  close(): void {
    this.#options.life.abort();
    this.reachable = false;
    this.error = 'the pod left the pool';
    this.#wake();
  }

  /** True as soon as the pod reports a state that satisfies; false after `waitMs` or when it becomes unreachable. */
  async whenState(satisfies: (state: PodState) => boolean, waitMs: number): Promise<boolean> {
    const { clock } = this.#options;
    const untilMs = clock.monotonicMs() + waitMs;
    for (;;) {
      if (!this.reachable || this.state === null) return false;
      if (satisfies(this.state)) return true;
      const leftMs = untilMs - clock.monotonicMs();
      if (leftMs <= 0) return false;
      await this.#nextChange(leftMs);
    }
  }

  #nextChange(waitMs: number): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        cancel();
        this.#waiters.delete(wake);
        resolve();
      };
      const cancel = this.#options.clock.after(waitMs, wake);
      this.#waiters.add(wake);
    });
  }

  #wake(): void {
    this.#heard.resolve();
    for (const wake of [...this.#waiters]) wake();
  }

  #accept(state: PodState): void {
    const previous = this.state;
    const returned = !this.reachable;
    if (previous?.bootId !== state.bootId) this.sinceMs = this.#options.clock.monotonicMs();
    this.state = state;
    this.reachable = true;
    this.error = null;
    this.lacksToken = false;
    this.#logArrival(previous, returned);
    const adapters = returned ? 'all' : changedAdapters(previous, state);
    this.#wake();
    const freed = previous !== null && hasFreed(previous.used, state.used);
    this.#options.onChange({ poolKey: this.poolKey, adapters, ...(freed && { freed }) });
  }

  #logArrival(previous: PodState | null, returned: boolean): void {
    const { log } = this.#options;
    const about = { pool: this.poolKey, pod: this.name };
    const adapters = this.state?.adapters.length ?? 0;
    if (previous === null) log.info({ ...about, address: this.adminUrl, adapters }, 'pod joined');
    else if (previous.bootId !== this.state?.bootId) log.info({ ...about, adapters }, 'pod restarted');
    else if (returned) log.info({ ...about, adapters }, 'pod is reachable again');
  }

  #lost(error: unknown): void {
    const reason = rootMessage(error);
    const was = this.reachable;
    const news = this.error !== reason;
    this.reachable = false;
    this.error = reason;
    this.lacksToken = causesOf(error).some((cause) => cause instanceof TokenNotFound);
    if (was) this.#options.log.warn({ pool: this.poolKey, pod: this.name, reason }, 'pod is unreachable');
    this.#wake();
    if (was || news) this.#options.onChange({ poolKey: this.poolKey, adapters: 'all' });
  }
}
