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
import { Reports } from './reports.ts';
import { openTlsDispatcher, type PodTls, TlsSource } from './tls.ts';
import { type AdminTokens, TokenSource } from './token.ts';

const ZONE_LABEL = 'topology.kubernetes.io/zone';

/** The part of a v1 Pod that this folder reads. */
export interface KubePod extends KubeObject {
  status?: { phase?: string; podIP?: string };
}

export interface FleetOptions {
  pools: { list(): ServerPool[] };
  pods: { list(): KubePod[] };
  /** The admin token that the pool names; throws where it is not there. */
  readToken: (pool: ServerPool) => Promise<AdminTokens>;
  /** What pods are called with whose pool says tls; throws where it is not there. */
  readTls: (pool: ServerPool) => Promise<PodTls>;
  /** To all other pods. */
  dispatcher: Dispatcher;
  clock: Clock;
  random?: () => number;
  log: Log;
  timeouts?: PodTimeouts | undefined;
  /** See PodClientOptions. */
  mayAct?: () => boolean;
}

interface Link {
  pod: PodLink;
  /** Changes when another process may answer at the address, or what it is asked with: a new link is made then. */
  identity: string;
  /** The part of it that says who answers. */
  process: string;
  done: Promise<void>;
}

type Links = Map<string, Map<string, Link>>;

/** A pod that runs on after its pool was deleted, or selects it no more. */
export interface FormerPod {
  pod: Pod;
  /** The pool that has it now; null: none. */
  poolKeyNow: string | null;
}

/** A pod that a pool selects but does not have: an older one selects it too. */
export interface ClaimedPod {
  name: string;
  /** `namespace/name` of the pool that has it. */
  owner: string;
}

/** One link to each pod, from the pool that has it; whoever needs a pool's pods asks here. */
export class Fleet {
  readonly #options: FleetOptions;
  readonly #links: Links = new Map();
  /** Links that stay open because something may have to be taken out of the pod: it still holds what its pool put there. */
  readonly #former: Links = new Map();
  readonly #claimed = new Map<string, ClaimedPod[]>();
  readonly #tokens = new Map<string, { ref: string; source: TokenSource }>();
  readonly #tls = new Map<string, { ref: string; source: TlsSource }>();
  readonly #reports = new Reports();
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

  /** Pods that match the pool's selector and belong to an older pool, by name. */
  claimedOf(poolKey: string): readonly ClaimedPod[] {
    return this.#claimed.get(poolKey) ?? [];
  }

  /** Pods that left the pool and run on, by name, until they hold nothing more. */
  formerOf(poolKey: string): FormerPod[] {
    const links = [...(this.#former.get(poolKey)?.values() ?? [])];
    return links
      .map(({ pod }) => ({ pod, poolKeyNow: this.#poolOf(pod.key) }))
      .sort((a, b) => (a.pod.name < b.pod.name ? -1 : 1));
  }

  /** Milliseconds since this process began to follow the pod; 0 for one that is not followed. */
  followedMs(pod: Pod): number {
    const link = this.#linkTo(pod);
    return link === undefined ? 0 : this.#options.clock.monotonicMs() - link.sinceMs;
  }

  /** True once the pod reports what satisfies; false after `waitMs`, or where it is unreachable or gone. */
  async whenState(pod: Pod, satisfies: (state: PodState) => boolean, waitMs: number): Promise<boolean> {
    const link = this.#linkTo(pod);
    return link === undefined ? false : await link.whenState(satisfies, waitMs);
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
    const pods = this.#options.pods.list().filter(isUsable);
    const running = new Map(pods.map((pod) => [keyOf(pod), pod]));
    for (const poolKey of [...this.#links.keys()]) {
      if (!wanted.has(poolKey)) this.#syncPool(poolKey, { members: new Map(), running });
    }
    const owners = ownersOf(pods, pools);
    for (const [poolKey, pool] of wanted) {
      const members = pods.filter((pod) => owners.get(keyOf(pod)) === poolKey);
      const byKey = new Map(members.map((pod) => [keyOf(pod), pod]));
      this.#syncPool(poolKey, { members: byKey, running }, pool);
      this.#noteClaimed(
        poolKey,
        pods.filter((pod) => isMember(pod, pool) && !byKey.has(keyOf(pod))),
        owners,
      );
    }
    this.#dropFormer(running);
  }

  async close(): Promise<void> {
    const links = [this.#links, this.#former].flatMap((pools) =>
      [...pools.values()].flatMap((pool) => [...pool.values()]),
    );
    this.#links.clear();
    this.#former.clear();
    for (const link of links) link.pod.close();
    await Promise.all(links.map((link) => link.done));
  }

  #podLinks(poolKey: string): PodLink[] {
    return [...(this.#links.get(poolKey)?.values() ?? [])].map((link) => link.pod);
  }

  /** Undefined where another link, or none, goes to the pod by now. */
  #linkTo(pod: Pod): PodLink | undefined {
    const links = [this.#links, this.#former].map((pools) => pools.get(pod.poolKey)?.get(pod.key)?.pod);
    return links.find((link) => link === pod);
  }

  #poolOf(podKey: string): string | null {
    for (const [poolKey, links] of this.#links) if (links.has(podKey)) return poolKey;
    return null;
  }

  #syncPool(
    poolKey: string,
    { members, running }: { members: Map<string, KubePod>; running: Map<string, KubePod> },
    pool?: ServerPool,
  ): void {
    const links = this.#links.get(poolKey) ?? new Map<string, Link>();
    let changed = false;
    for (const [podKey, link] of [...links]) {
      const member = members.get(podKey);
      if (member && pool && identityOf(member, pool) === link.identity) continue;
      links.delete(podKey);
      if (!member && link.process === processOf(running.get(podKey))) this.#keepFormer(poolKey, podKey, link);
      else link.pod.close();
      this.#options.log.info({ pool: poolKey, pod: link.pod.name }, 'pod left');
      changed = true;
    }
    for (const [podKey, member] of members) {
      if (links.has(podKey) || !pool) continue;
      this.#former.get(poolKey)?.get(podKey)?.pod.close();
      this.#former.get(poolKey)?.delete(podKey);
      links.set(podKey, this.#connect(member, pool));
      changed = true;
    }
    if (links.size > 0) this.#links.set(poolKey, links);
    else this.#links.delete(poolKey);
    if (!pool) this.#tokens.delete(poolKey);
    if (!pool) this.#tls.delete(poolKey);
    if (!pool) this.#claimed.delete(poolKey);
    if (changed) this.#emit({ poolKey, adapters: 'all' });
  }

  #noteClaimed(poolKey: string, pods: readonly KubePod[], owners: ReadonlyMap<string, string>): void {
    const claimed = pods
      .map((pod) => ({ name: pod.metadata.name, owner: owners.get(keyOf(pod)) ?? '' }))
      .sort((a, b) => (a.name < b.name ? -1 : 1));
    const before = this.claimedOf(poolKey);
    if (claimed.length > 0) this.#claimed.set(poolKey, claimed);
    else this.#claimed.delete(poolKey);
    if (JSON.stringify(claimed) !== JSON.stringify(before)) this.#emit({ poolKey, adapters: 'all' });
  }

  #keepFormer(poolKey: string, podKey: string, link: Link): void {
    const links = this.#former.get(poolKey) ?? new Map<string, Link>();
    this.#former.set(poolKey, links.set(podKey, link));
  }

  /** Pods that are gone, or hold nothing that could have to be taken out. */
  #dropFormer(running: Map<string, KubePod>): void {
    for (const [poolKey, links] of this.#former) {
      for (const [podKey, { pod, process }] of links) {
        const isEmpty = pod.reachable && pod.state?.adapters.length === 0;
        if (process === processOf(running.get(podKey)) && !isEmpty) continue;
        pod.close();
        links.delete(podKey);
        this.#emit({ poolKey, adapters: 'all' });
      }
      if (links.size === 0) this.#former.delete(poolKey);
    }
  }

  #connect(member: KubePod, pool: ServerPool): Link {
    const { clock, log, timeouts, mayAct, random = Math.random } = this.#options;
    const ip = member.status?.podIP ?? '';
    const scheme = pool.spec.admin.tls === undefined ? 'http' : 'https';
    const adminUrl = `${scheme}://${ip.includes(':') ? `[${ip}]` : ip}:${pool.spec.admin.port}`;
    const life = new AbortController();
    const client = new PodClient({
      adminUrl,
      dispatcher: this.#dispatcherFor(pool, life.signal),
      token: this.#tokenOf(pool),
      life: life.signal,
      clock,
      reports: this.#reports,
      ...(timeouts && { timeouts }),
      ...(mayAct && { mayAct }),
    });
    const identity = {
      key: keyOf(member),
      name: member.metadata.name,
      namespace: member.metadata.namespace ?? '',
      uid: member.metadata.uid ?? '',
      ip,
      poolKey: keyOf(pool),
      adminUrl,
      zone: member.metadata.labels?.[ZONE_LABEL] ?? null,
    };
    const onChange = (change: FleetChange) => this.#emit(change);
    const pod = new PodLink({ identity, client, life, clock, random, log, onChange });
    return { pod, identity: identityOf(member, pool), process: processOf(member), done: pod.run() };
  }

  #tokenOf(pool: ServerPool): TokenSource {
    const read = () => new TokenSource(() => this.#options.readToken(pool), this.#options.clock);
    return sourceOf(this.#tokens, keyOf(pool), { ref: pool.spec.admin.auth.tokenSecretRef, open: read });
  }

  #dispatcherFor(pool: ServerPool, life: AbortSignal): Dispatcher {
    const { tls } = pool.spec.admin;
    if (tls === undefined) return this.#options.dispatcher;
    const open = () => new TlsSource(() => this.#options.readTls(pool), this.#options.clock);
    const source = sourceOf(this.#tls, keyOf(pool), { ref: tls, open });
    const agent = openTlsDispatcher(source, tls.serverName);
    life.addEventListener('abort', () => void agent.destroy(), { once: true });
    return agent;
  }

  #emit(change: FleetChange): void {
    for (const listener of this.#listeners) listener(change);
  }
}

/** One for all pods of a pool, for as long as the pool names the same Secrets. */
function sourceOf<T>(
  known: Map<string, { ref: string; source: T }>,
  poolKey: string,
  { ref, open }: { ref: object; open: () => T },
): T {
  const text = JSON.stringify(ref);
  const found = known.get(poolKey);
  if (found?.ref === text) return found.source;
  const source = open();
  known.set(poolKey, { ref: text, source });
  return source;
}

function isUsable(pod: KubePod): boolean {
  const { phase, podIP } = pod.status ?? {};
  return phase === 'Running' && Boolean(podIP) && pod.metadata.deletionTimestamp === undefined;
}

function isMember(pod: KubePod, pool: ServerPool): boolean {
  if (pod.metadata.namespace !== pool.metadata.namespace) return false;
  return matchesSelector(pool.spec.selector, pod.metadata.labels);
}

/** By pod key: the oldest pool that selects the pod, so that two never give it different orders. */
function ownersOf(pods: readonly KubePod[], pools: readonly ServerPool[]): Map<string, string> {
  const byAge = pools.toSorted(byCreation);
  const owned = pods.flatMap((pod) => {
    const owner = byAge.find((pool) => isMember(pod, pool));
    return owner === undefined ? [] : [[keyOf(pod), keyOf(owner)] as const];
  });
  return new Map(owned);
}

function byCreation(a: ServerPool, b: ServerPool): number {
  const [timeA = 0, timeB = 0] = [a, b].map(({ metadata }) => Date.parse(metadata.creationTimestamp ?? ''));
  if (timeA !== timeB) return timeA - timeB;
  return (a.metadata.uid ?? '') < (b.metadata.uid ?? '') ? -1 : 1;
}

function identityOf(pod: KubePod, pool: ServerPool): string {
  const { port, auth, tls } = pool.spec.admin;
  return [processOf(pod), port, JSON.stringify({ auth, tls })].join(' ');
}

function processOf(pod: KubePod | undefined): string {
  return pod === undefined ? '' : `${pod.metadata.uid} ${pod.status?.podIP}`;
}
