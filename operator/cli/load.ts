import type { PodState } from '../../server/contract/adapter-api.ts';
import { LORIKEET, VLLM } from '../../server/telemetry/metric-names.ts';
import { type Sample, sumOf, sumsBy } from './metrics-text.ts';

/** Two scrapes of one pod, and its state where that could be read. */
export interface PodScrapes {
  pod: string;
  pool: string;
  seconds: number;
  first: readonly Sample[];
  second: readonly Sample[];
  state: PodState | null;
}

export interface PodLoad {
  pod: string;
  pool: string;
  running: number | null;
  waiting: number | null;
  /** Those that the prefix cache had are counted too, as by adapter. */
  promptTokensPerSecond: number | null;
  tokensPerSecond: number | null;
  slots: { used: number | null; total: number | null };
  hostBytes: { used: number | null; total: number | null };
  /** 0 to 1. */
  kvUsed: number | null;
}

export interface AdapterLoad {
  /** As clients name it; empty: the base. */
  servedName: string;
  pool: string;
  pods: number;
  /** Of these, pods that have it in a slot. */
  inSlots: number;
  requestsPerMinute: number | null;
  promptTokensPerSecond: number;
  /** Of its prompt tokens, those that the prefix cache had, in all; null: there were none. */
  prefixHits: number | null;
}

export function podLoad({ pod, pool, seconds, first, second }: PodScrapes): PodLoad {
  const now = (name: string) => sumOf(second, name);
  const rate = (name: string) => ratePerSecond(sumOf(first, name), now(name), seconds);
  return {
    pod,
    pool,
    running: now(VLLM.running),
    waiting: now(VLLM.waiting),
    promptTokensPerSecond: rate(VLLM.prefixQueries),
    tokensPerSecond: rate(LORIKEET.generatedTokens),
    slots: { used: now(LORIKEET.slotsUsed), total: now(LORIKEET.slots) },
    hostBytes: { used: now(LORIKEET.hostBytesUsed), total: now(LORIKEET.hostBytes) },
    kvUsed: now(VLLM.kvUsage),
  };
}

/** Null: unknown. A counter that fell began anew with its process. */
function ratePerSecond(before: number | null, after: number | null, seconds: number): number | null {
  if (after === null || seconds <= 0) return null;
  const grown = before === null || after < before ? after : after - before;
  return grown / seconds;
}

/** Of all pods together, the busiest first. */
export function adapterLoads(scrapes: readonly PodScrapes[]): AdapterLoad[] {
  const loads = new Map<string, AdapterLoad & { queries: number; hits: number }>();
  for (const scrape of scrapes) {
    for (const servedName of namesIn(scrape)) {
      const key = `${scrape.pool} ${servedName}`;
      const load = loads.get(key) ?? emptyLoad(servedName, scrape.pool);
      loads.set(key, load);
      add(load, scrape);
    }
  }
  return [...loads.values()]
    .map(({ queries, hits, ...load }) => ({ ...load, prefixHits: queries === 0 ? null : hits / queries }))
    .sort(
      (a, b) =>
        b.promptTokensPerSecond - a.promptTokensPerSecond ||
        (b.requestsPerMinute ?? 0) - (a.requestsPerMinute ?? 0) ||
        a.servedName.localeCompare(b.servedName),
    );
}

function emptyLoad(servedName: string, pool: string) {
  const counts = { pods: 0, inSlots: 0, promptTokensPerSecond: 0, queries: 0, hits: 0 };
  return { servedName, pool, requestsPerMinute: null, prefixHits: null, ...counts };
}

function namesIn({ second, state }: PodScrapes): Set<string> {
  const loaded = sumsBy(second, VLLM.adapterLoaded, 'adapter_name').keys();
  const prompted = sumsBy(second, LORIKEET.prefixQueries, 'adapter').keys();
  return new Set([...loaded, ...prompted, ...(state?.adapters.map(({ name }) => name) ?? [])]);
}

function add(load: AdapterLoad & { queries: number; hits: number }, scrape: PodScrapes): void {
  const { first, second, seconds, state } = scrape;
  const name = load.servedName;
  const of = (samples: readonly Sample[], metric: string) =>
    sumsBy(samples, metric, 'adapter').get(name) ?? null;
  const queries = of(second, LORIKEET.prefixQueries);
  load.pods += 1;
  load.inSlots += isInSlot(scrape, name) ? 1 : 0;
  load.queries += queries ?? 0;
  load.hits += of(second, LORIKEET.prefixHits) ?? 0;
  load.promptTokensPerSecond += ratePerSecond(of(first, LORIKEET.prefixQueries), queries, seconds) ?? 0;
  if (state === null) return;
  const told = state.adapters.find((adapter) => adapter.name === name)?.requestsPerMinute ?? 0;
  load.requestsPerMinute = (load.requestsPerMinute ?? 0) + told;
}

function isInSlot({ second }: PodScrapes, name: string): boolean {
  return second.some(
    (sample) =>
      sample.name === VLLM.adapterLoaded &&
      sample.labels.adapter_name === name &&
      sample.labels.level === 'gpu',
  );
}
