import type { Dispatcher } from 'undici';
import type { PodState } from '../../server/contract/adapter-api.ts';
import { matchesSelector } from '../api/label-selector.ts';
import type { ServerPool } from '../api/server-pool.ts';
import { type Clock, pause } from '../kube/clock.ts';
import type { Log } from '../kube/log.ts';
import { type KubeObject, keyOf } from '../kube/resource.ts';
import { PodClient, type PodTimeouts } from './client.ts';
import { PodLink } from './link.ts';
import type { FleetChange, Pod } from './pod.ts';
import { TokenSource } from './token.ts';

/** The part of a v1 Pod that this folder reads. */
export interface KubePod extends KubeObject {
  status?: { phase?: string; podIP?: string };
}

export interface FleetOptions {
  pools: { list(): ServerPool[] };
  pods: { list(): KubePod[] };
  /** The admin token that the pool names; throws where it is not there. */
  readToken: (pool: ServerPool) => Promise<string>;
  dispatcher: Dispatcher;
  clock: Clock;
  random?: () => number;
  log: Log;
  timeouts?: PodTimeouts;
}

interface Link {
  pod: PodLink;
  /** Changes when another process may answer at the address: a new link is made then. */
  identity: string;
  done: Promise<void>;
}

/** One link to each pod of each pool; whoever needs a pool's pods asks here. */
export class Fleet {
  readonly #options: FleetOptions;
  readonly #links = new Map<string, Map<string, Link>>();
  readonly #tokens = new Map<string, { ref: string; source: TokenSource }>();
  readonly #listeners = new Set<(change: FleetChange) => void>();

  constructor(options: FleetOptions) {
    this.#options = options;
  }

  onChange(listener: (change: FleetChange) => void): void {
    this.#listeners.add(listener);
  }

  /** The pool's pods, by name. */
  podsOf(poolKey: string): Pod[] {
    return this.#podLinks(poolKey).sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** Milliseconds since this process began to follow the pod; 0 for one that is not followed. */
  followedMs(pod: Pod): number {
    const link = this.#links.get(pod.poolKey)?.get(pod.key)?.pod;
    return link === undefined ? 0 : this.#options.clock.monotonicMs() - link.sinceMs;
  }

  /** True once the pod reports what satisfies; false after `waitMs`, or where it is unreachable or gone. */
  async whenState(pod: Pod, satisfies: (state: PodState) => boolean, waitMs: number): Promise<boolean> {
    const link = this.#links.get(pod.poolKey)?.get(pod.key)?.pod;
    return link === pod ? await link.whenState(satisfies, waitMs) : false;
  }

  /** Resolves when every pod has reported or failed to, or after `waitMs`: what follows need not guess. */
  async whenHeard(waitMs: number): Promise<void> {
    const pods = [...this.#links.keys()].flatMap((poolKey) => this.#podLinks(poolKey));
    const stop = new AbortController();
    await Promise.race([
      Promise.all(pods.map((pod) => pod.whenHeard)),
      pause(this.#options.clock, waitMs, stop.signal),
    ]);
    stop.abort();
  }

  /** Makes the links what the caches of pools and pods say; call it when either changed. */
  sync(): void {
    const pools = this.#options.pools.list();
    const wanted = new Map(pools.map((pool) => [keyOf(pool), pool]));
    for (const poolKey of [...this.#links.keys()]) {
      if (!wanted.has(poolKey)) this.#syncPool(poolKey, new Map());
    }
    const pods = this.#options.pods.list().filter(isUsable);
    for (const [poolKey, pool] of wanted) {
      const members = pods.filter((pod) => isMember(pod, pool)).map((pod) => [keyOf(pod), pod] as const);
      this.#syncPool(poolKey, new Map(members), pool);
    }
  }

  async close(): Promise<void> {
    const links = [...this.#links.values()].flatMap((pool) => [...pool.values()]);
    this.#links.clear();
    for (const link of links) link.pod.close();
    await Promise.all(links.map((link) => link.done));
  }

  #podLinks(poolKey: string): PodLink[] {
    return [...(this.#links.get(poolKey)?.values() ?? [])].map((link) => link.pod);
  }

  #syncPool(poolKey: string, members: Map<string, KubePod>, pool?: ServerPool): void {
    const links = this.#links.get(poolKey) ?? new Map<string, Link>();
    let changed = false;
    for (const [podKey, link] of [...links]) {
      const member = members.get(podKey);
      if (member && pool && identityOf(member, pool) === link.identity) continue;
      link.pod.close();
      links.delete(podKey);
      this.#options.log.info({ pool: poolKey, pod: link.pod.name }, 'pod left');
      changed = true;
    }
    for (const [podKey, member] of members) {
      if (links.has(podKey) || !pool) continue;
      links.set(podKey, this.#connect(member, pool));
      changed = true;
    }
    if (links.size > 0) this.#links.set(poolKey, links);
    else this.#links.delete(poolKey);
    if (!pool) this.#tokens.delete(poolKey);
    if (changed) this.#emit({ poolKey, adapters: 'all' });
  }

  #connect(member: KubePod, pool: ServerPool): Link {
    const { clock, log, dispatcher, timeouts, random = Math.random } = this.#options;
    const ip = member.status?.podIP ?? '';
    const adminUrl = `http://${ip.includes(':') ? `[${ip}]` : ip}:${pool.spec.admin.port}`;
    const life = new AbortController();
    const client = new PodClient({
      adminUrl,
      dispatcher,
      token: this.#tokenOf(pool),
      life: life.signal,
      clock,
      ...(timeouts ? { timeouts } : {}),
    });
    const identity = {
      key: keyOf(member),
      name: member.metadata.name,
      namespace: member.metadata.namespace ?? '',
      uid: member.metadata.uid ?? '',
      ip,
      poolKey: keyOf(pool),
      adminUrl,
    };
    const onChange = (change: FleetChange) => this.#emit(change);
    const pod = new PodLink({ identity, client, life, clock, random, log, onChange });
    return { pod, identity: identityOf(member, pool), done: pod.run() };
  }

  #tokenOf(pool: ServerPool): TokenSource {
    const poolKey = keyOf(pool);
    const ref = JSON.stringify(pool.spec.admin.auth.tokenSecretRef);
    const known = this.#tokens.get(poolKey);
    if (known?.ref === ref) return known.source;
    const source = new TokenSource(() => this.#options.readToken(pool), this.#options.clock);
    this.#tokens.set(poolKey, { ref, source });
    return source;
  }

  #emit(change: FleetChange): void {
    for (const listener of this.#listeners) listener(change);
  }
}

function isUsable(pod: KubePod): boolean {
  const { phase, podIP } = pod.status ?? {};
  return phase === 'Running' && Boolean(podIP) && pod.metadata.deletionTimestamp === undefined;
}

function isMember(pod: KubePod, pool: ServerPool): boolean {
  if (pod.metadata.namespace !== pool.metadata.namespace) return false;
  return matchesSelector(pool.spec.selector, pod.metadata.labels);
}

function identityOf(pod: KubePod, pool: ServerPool): string {
  const { port, auth } = pool.spec.admin;
  return [pod.metadata.uid, pod.status?.podIP, port, JSON.stringify(auth)].join(' ');
}
