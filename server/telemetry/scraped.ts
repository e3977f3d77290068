import { Counter, Gauge, type Registry } from 'prom-client';
import { LORIKEET, VLLM } from './metric-names.ts';

/** What is read at each scrape. */
export interface MetricsSource {
  baseModel: string;
  blockTokens: number;
  kvBlocks: number;
  pages: number;
  snapshot(): {
    running: number;
    waiting: number;
    kvBlocksUsed: number;
    pagesUsed: number;
    step: number;
    promptTokens: number;
    generatedTokens: number;
    preemptions: number;
    prefixTokensQueried: number;
    prefixTokensHit: number;
    waitingAdapters: string[];
    /** Revisions in the engine, each in a slot. */
    slots: unknown[];
  };
  /** RAM for revisions besides the slots. */
  hostTier: { readonly bytesMax: number; readonly usedBytes: number };
  /** Adapter names whose current revision is in a slot, and those whose bytes are in the host tier. */
  residency(): { slots: number; resident: string[]; host: string[] };
  /** What each adapter's name means. */
  current(): { name: string; digest: string; step: number | null }[];
}

/** vLLM's, which dashboards filter by. */
export type EngineLabels = { engine: string; model_name: string };

export function addScraped(
  register: Registry,
  source: MetricsSource,
  { labels, now }: { labels: EngineLabels; now: () => number },
): void {
  const gauge: AddGauge = (name, help, read) => {
    new Gauge({
      name,
      help,
      labelNames: ['engine', 'model_name'],
      registers: [register],
      collect() {
        this.set({ ...labels }, read());
      },
    });
  };
  engineGauges(register, source, gauge);
  adapterCounts(source, gauge);
  adapterSeries(register, source, { labels, now });
  engineCounters(register, source, labels);
}

type AddGauge = (name: string, help: string, read: () => number) => void;

function engineGauges(register: Registry, source: MetricsSource, gauge: AddGauge): void {
  const kvUsage = () => source.snapshot().kvBlocksUsed / source.kvBlocks;
  gauge(VLLM.waiting, 'Sequences that wait.', () => source.snapshot().waiting);
  gauge(VLLM.running, 'Sequences that run.', () => source.snapshot().running);
  gauge(VLLM.kvUsage, 'Share of KV blocks in use, 0 to 1.', kvUsage);
  gauge(VLLM.gpuCacheUsage, 'Share of KV blocks in use, under its older name.', kvUsage);
  gauge(LORIKEET.slots, 'Revisions that can be resident.', () => source.residency().slots);
  gauge(LORIKEET.slotsUsed, 'Revisions that are resident.', () => source.snapshot().slots.length);
  gauge(LORIKEET.pages, 'Pages of the slot pool.', () => source.pages);
  gauge(LORIKEET.pagesUsed, 'Pages of the slot pool in use.', () => source.snapshot().pagesUsed);
  gauge(LORIKEET.hostBytes, 'Memory that the host tier may take.', () => source.hostTier.bytesMax);
  gauge(
    LORIKEET.hostBytesUsed,
    'Memory that revisions in the host tier take, and those that arrive: file, config, plan and records.',
    () => source.hostTier.usedBytes,
  );
  new Gauge({
    name: VLLM.cacheConfig,
    help: 'KV cache geometry, as labels.',
    labelNames: ['block_size', 'num_gpu_blocks'],
    registers: [register],
  }).set({ block_size: source.blockTokens, num_gpu_blocks: source.kvBlocks }, 1);
}

function adapterCounts(source: MetricsSource, gauge: AddGauge): void {
  gauge(VLLM.maxGpuAdapters, 'Revisions that can be resident.', () => source.residency().slots);
  gauge(VLLM.gpuLoadedAdapters, 'Adapters in a slot.', () => source.residency().resident.length);
  gauge(VLLM.cpuLoadedAdapters, 'Adapters in the host tier.', () => source.residency().host.length);
}

function adapterSeries(
  register: Registry,
  source: MetricsSource,
  { labels, now }: { labels: EngineLabels; now: () => number },
): void {
  // The picker takes the series with the largest value: there must be one only, and its value must grow.
  new Gauge({
    name: VLLM.loraRequests,
    help: 'Resident adapters, and those queued and not resident; the value is the time in seconds.',
    labelNames: ['max_lora', 'running_lora_adapters', 'waiting_lora_adapters'],
    registers: [register],
    collect() {
      const { slots, resident } = source.residency();
      const waiting = source.snapshot().waitingAdapters.filter((name) => !resident.includes(name));
      this.reset();
      this.set(
        {
          max_lora: slots,
          running_lora_adapters: resident.toSorted().join(','),
          waiting_lora_adapters: waiting.toSorted().join(','),
        },
        now() / 1000,
      );
    },
  });
  new Gauge({
    name: VLLM.adapterLoaded,
    help: 'One series per adapter and tier while it is there.',
    labelNames: ['engine', 'model_name', 'adapter_name', 'level', 'pinned'],
    registers: [register],
    collect() {
      const { resident, host } = source.residency();
      this.reset();
      for (const adapter_name of resident)
        this.set({ ...labels, adapter_name, level: 'gpu', pinned: 'false' }, 1);
      for (const adapter_name of host)
        this.set({ ...labels, adapter_name, level: 'cpu', pinned: 'false' }, 1);
    },
  });
}

/** The engine counts these itself; they only grow, so a scrape shows its numbers as they are. */
function engineCounters(register: Registry, source: MetricsSource, labels: EngineLabels): void {
  const counter = (name: string, help: string, read: () => number, given: Partial<EngineLabels> = {}) =>
    new Counter({
      name,
      help,
      labelNames: Object.keys(given),
      registers: [register],
      collect() {
        this.reset();
        this.inc(given, read());
      },
    });
  const promptTokens = () => source.snapshot().promptTokens;
  const generatedTokens = () => source.snapshot().generatedTokens;
  const preemptions = () => source.snapshot().preemptions;
  counter(LORIKEET.promptTokens, 'Prompt tokens computed.', promptTokens);
  counter(VLLM.promptTokens, 'Prompt tokens computed, under its vLLM name.', promptTokens, labels);
  counter(LORIKEET.generatedTokens, 'Tokens generated.', generatedTokens);
  counter(VLLM.generationTokens, 'Tokens generated, under its vLLM name.', generatedTokens, labels);
  counter(LORIKEET.preemptions, 'Sequences that gave up their KV blocks.', preemptions);
  counter(
    VLLM.preemptions,
    'Sequences that gave up their KV blocks, under its vLLM name.',
    preemptions,
    labels,
  );
  const queried = () => source.snapshot().prefixTokensQueried;
  counter(VLLM.prefixQueries, 'Prompt tokens looked up in the prefix cache.', queried, labels);
  const hit = () => source.snapshot().prefixTokensHit;
  counter(VLLM.prefixHits, 'Prompt tokens found in the prefix cache.', hit, labels);
  counter(LORIKEET.engineSteps, 'Engine steps.', () => source.snapshot().step);
}
