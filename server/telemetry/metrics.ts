import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
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
    waitingAdapters: string[];
  };
  /** Adapter names whose current revision is in a slot, and those whose bytes are in the host tier. */
  residency(): { slots: number; resident: string[]; host: string[] };
}

export interface Metrics {
  text(): Promise<string>;
  contentType: string;
  requestDone(endpoint: string, code: number, seconds: number): void;
  firstToken(seconds: number): void;
  staged(seconds: number): void;
  swapped(seconds: number): void;
}

const FAST_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
const REQUEST_SECONDS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300];

export function createMetrics(source: MetricsSource, now: () => number = Date.now): Metrics {
  const register = new Registry();
  collectDefaultMetrics({ register });
  const labels = { engine: '0', model_name: source.baseModel };
  const gauge: AddGauge = (name, help, read) => {
    new Gauge({
      name,
      help,
      labelNames: ['engine', 'model_name'],
      registers: [register],
      collect() {
        this.set(labels, read());
      },
    });
  };
  engineGauges(register, source, gauge);
  adapterCounts(source, gauge);
  adapterSeries(register, source, now);
  engineCounters(register, source);

  const histogram = (name: string, help: string, buckets: number[]) =>
    new Histogram({ name, help, buckets, registers: [register] });
  const requests = new Counter({
    name: LORIKEET.requests,
    help: 'Requests answered, by endpoint and HTTP status.',
    labelNames: ['endpoint', 'code'],
    registers: [register],
  });
  const requestSeconds = histogram(LORIKEET.requestSeconds, 'From request to last byte.', REQUEST_SECONDS);
  const firstTokenSeconds = histogram(
    LORIKEET.firstTokenSeconds,
    'From request to first token.',
    FAST_SECONDS,
  );
  const stageSeconds = histogram(
    LORIKEET.stageSeconds,
    'Staging a revision in the engine, once its bytes are here.',
    FAST_SECONDS,
  );
  const loadSeconds = histogram(VLLM.adapterLoadSeconds, 'The same, under its vLLM name.', FAST_SECONDS);
  const swapSeconds = histogram(LORIKEET.swapSeconds, 'Making a staged revision current.', FAST_SECONDS);
  const swaps = new Counter({ name: LORIKEET.swaps, help: 'Activations.', registers: [register] });

  return {
    text: () => register.metrics(),
    contentType: register.contentType,
    requestDone(endpoint, code, seconds) {
      requests.inc({ endpoint, code });
      requestSeconds.observe(seconds);
    },
    firstToken: (seconds) => firstTokenSeconds.observe(seconds),
    staged(seconds) {
      stageSeconds.observe(seconds);
      loadSeconds.observe(seconds);
    },
    swapped(seconds) {
      swaps.inc();
      swapSeconds.observe(seconds);
    },
  };
}

type AddGauge = (name: string, help: string, read: () => number) => void;

function engineGauges(register: Registry, source: MetricsSource, gauge: AddGauge): void {
  const kvUsage = () => source.snapshot().kvBlocksUsed / source.kvBlocks;
  gauge(VLLM.waiting, 'Sequences that wait.', () => source.snapshot().waiting);
  gauge(VLLM.running, 'Sequences that run.', () => source.snapshot().running);
  gauge(VLLM.kvUsage, 'Share of KV blocks in use, 0 to 1.', kvUsage);
  gauge(VLLM.gpuCacheUsage, 'The same, under its older name.', kvUsage);
  gauge(LORIKEET.slots, 'Revisions that can be resident.', () => source.residency().slots);
  gauge(
    LORIKEET.slotsUsed,
    'Adapters whose current revision is resident.',
    () => source.residency().resident.length,
  );
  gauge(LORIKEET.pages, 'Pages of the slot pool.', () => source.pages);
  gauge(LORIKEET.pagesUsed, 'Pages in use.', () => source.snapshot().pagesUsed);
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

function adapterSeries(register: Registry, source: MetricsSource, now: () => number): void {
  const labels = { engine: '0', model_name: source.baseModel };
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
function engineCounters(register: Registry, source: MetricsSource): void {
  const counter = (name: string, help: string, read: () => number) =>
    new Counter({
      name,
      help,
      registers: [register],
      collect() {
        this.reset();
        this.inc(read());
      },
    });
  counter(LORIKEET.promptTokens, 'Prompt tokens computed.', () => source.snapshot().promptTokens);
  counter(LORIKEET.generatedTokens, 'Tokens generated.', () => source.snapshot().generatedTokens);
  counter(
    LORIKEET.preemptions,
    'Sequences that gave up their KV blocks.',
    () => source.snapshot().preemptions,
  );
  counter(LORIKEET.engineSteps, 'Engine steps.', () => source.snapshot().step);
}
