import { Counter, collectDefaultMetrics, Histogram, Registry } from 'prom-client';
import { LORIKEET, VLLM } from './metric-names.ts';
import { addScraped, type EngineLabels, type MetricsSource } from './scraped.ts';

/** How a sequence ended, in vLLM's words; `error` is told by its code besides. */
export type SequenceEnd = 'stop' | 'length' | 'abort';

export interface Metrics {
  text(): Promise<string>;
  contentType: string;
  requestDone(endpoint: string, code: number, seconds: number): void;
  firstToken(seconds: number): void;
  /** Of a request's prompt: its tokens, and those that had been computed before. Null: the base. */
  prefix(adapter: string | null, tokens: number, cached: number): void;
  betweenTokens(seconds: number): void;
  sequenceEnded(how: SequenceEnd): void;
  /** `code` is the engine's. */
  sequenceFailed(code: string): void;
  staged(seconds: number): void;
  evicted(revisions: number): void;
  swapped(seconds: number): void;
  adminCallDone(route: string, code: number, seconds: number): void;
  /** An adapter or a call that the admin API did not take; `code` is the contract's. */
  refused(code: string): void;
}

const FAST_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
const REQUEST_SECONDS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300];
/** Of these, vLLM's latency is that of whole answers. */
const GENERATING = ['/v1/completions', '/v1/chat/completions'];

export function createMetrics(source: MetricsSource, now: () => number = Date.now): Metrics {
  const register = new Registry();
  collectDefaultMetrics({ register });
  const labels: EngineLabels = { engine: '0', model_name: source.baseModel };
  addScraped(register, source, { labels, now });
  return {
    text: () => register.metrics(),
    contentType: register.contentType,
    ...requestMetrics(register, labels),
    ...sequenceMetrics(register, labels),
    ...adapterMetrics(register),
    ...adminMetrics(register),
    prefix: prefixMetrics(register, source),
  };
}

function requestMetrics(register: Registry, labels: EngineLabels) {
  const requests = counter(register, LORIKEET.requests, 'Requests answered, by endpoint and HTTP status.', [
    'endpoint',
    'code',
  ]);
  const seconds = histogram(register, LORIKEET.requestSeconds, 'From request to last byte.', REQUEST_SECONDS);
  const whole = labelled(
    register,
    labels,
    VLLM.requestSeconds,
    'The same of whole answers.',
    REQUEST_SECONDS,
  );
  const first = histogram(register, LORIKEET.firstTokenSeconds, 'From request to first token.', FAST_SECONDS);
  const vllmFirst = labelled(register, labels, VLLM.firstTokenSeconds, 'The same, under its vLLM name.');
  return {
    requestDone(endpoint: string, code: number, took: number) {
      requests.inc({ endpoint, code });
      seconds.observe(took);
      if (code === 200 && GENERATING.includes(endpoint)) whole.observe(took);
    },
    firstToken(took: number) {
      first.observe(took);
      vllmFirst.observe(took);
    },
  };
}

function sequenceMetrics(register: Registry, labels: EngineLabels) {
  const between = labelled(
    register,
    labels,
    VLLM.interTokenSeconds,
    'From one token of a sequence to the next.',
  );
  const ended = counter(register, VLLM.requestSuccess, 'Sequences that ended, by how.', [
    ...Object.keys(labels),
    'finished_reason',
  ]);
  const ends = ['stop', 'length', 'abort'] as const;
  for (const finished_reason of ends) ended.inc({ ...labels, finished_reason }, 0);
  const failed = counter(register, LORIKEET.failures, "Sequences that failed, by the engine's code.", [
    'code',
  ]);
  return {
    betweenTokens: (took: number) => between.observe(took),
    sequenceEnded: (finished_reason: SequenceEnd) => ended.inc({ ...labels, finished_reason }),
    sequenceFailed: (code: string) => failed.inc({ code }),
  };
}

function adapterMetrics(register: Registry) {
  const stages = histogram(register, LORIKEET.stageSeconds, 'Bringing a revision into a slot.', FAST_SECONDS);
  const loads = histogram(register, VLLM.adapterLoadSeconds, 'The same, under its vLLM name.', FAST_SECONDS);
  const evictions = counter(register, LORIKEET.evictions, 'Revisions that gave up their slots for others.');
  const swaps = counter(register, LORIKEET.swaps, 'Activations.');
  const swapSeconds = histogram(
    register,
    LORIKEET.swapSeconds,
    'Making a staged revision current.',
    FAST_SECONDS,
  );
  return {
    staged(took: number) {
      stages.observe(took);
      loads.observe(took);
    },
    evicted: (revisions: number) => evictions.inc(revisions),
    swapped(took: number) {
      swaps.inc();
      swapSeconds.observe(took);
    },
  };
}

/** Of adapters that are there: names of versions come and go with training. */
function prefixMetrics(register: Registry, source: MetricsSource): Metrics['prefix'] {
  const counts = new Map<string, { queries: number; hits: number }>();
  const add = (name: string, help: string, key: 'queries' | 'hits') =>
    new Counter({
      name,
      help,
      labelNames: ['adapter'],
      registers: [register],
      collect() {
        const { resident, host } = source.residency();
        const there = new Set(['', ...resident, ...host]);
        this.reset();
        for (const [adapter, count] of counts) {
          if (there.has(adapter)) this.inc({ adapter }, count[key]);
          else counts.delete(adapter);
        }
      },
    });
  add(LORIKEET.prefixQueries, 'Prompt tokens that were looked up; no adapter: the base.', 'queries');
  add(LORIKEET.prefixHits, 'Those whose keys and values were there already.', 'hits');
  return (adapter, tokens, cached) => {
    const count = counts.get(adapter ?? '') ?? { queries: 0, hits: 0 };
    count.queries += tokens;
    count.hits += cached;
    counts.set(adapter ?? '', count);
  };
}

function adminMetrics(register: Registry) {
  const calls = counter(register, LORIKEET.adminCalls, 'Admin calls answered, by route and HTTP status.', [
    'route',
    'code',
  ]);
  const seconds = histogram(
    register,
    LORIKEET.adminCallSeconds,
    'From admin call to answer.',
    REQUEST_SECONDS,
  );
  const refusals = counter(register, LORIKEET.refusals, 'Admin calls refused, by why.', ['code']);
  return {
    adminCallDone(route: string, code: number, took: number) {
      calls.inc({ route, code });
      seconds.observe(took);
    },
    refused: (code: string) => refusals.inc({ code }),
  };
}

function counter(register: Registry, name: string, help: string, labelNames: string[] = []) {
  return new Counter({ name, help, labelNames, registers: [register] });
}

function histogram(register: Registry, name: string, help: string, buckets: number[]) {
  return new Histogram({ name, help, buckets, registers: [register] });
}

function labelled(
  register: Registry,
  labels: EngineLabels,
  name: string,
  help: string,
  buckets = FAST_SECONDS,
) {
  const labelNames = Object.keys(labels);
  return new Histogram({ name, help, buckets, labelNames, registers: [register] }).labels({ ...labels });
}
