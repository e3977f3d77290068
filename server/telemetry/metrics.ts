import { Counter, collectDefaultMetrics, Histogram, Registry } from 'prom-client';
import { type AdapterTraffic, addByAdapter } from './by-adapter.ts';
import { LORIKEET, VLLM } from './metric-names.ts';
import { addScraped, type EngineLabels, type MetricsSource } from './scraped.ts';

/** How a sequence ended, in vLLM's words; `error` is told by its code besides. */
export type SequenceEnd = 'stop' | 'length' | 'abort';

/** What became of a sequence that had at least one token. */
export interface SequenceCourse {
  promptTokens: number;
  generatedTokens: number;
  queueSeconds: number;
  prefillSeconds: number;
  decodeSeconds: number;
}

export interface Metrics {
  text(): Promise<string>;
  contentType: string;
  requestDone(endpoint: string, code: number, seconds: number): void;
  /** Null: of the base. */
  firstToken(adapter: string | null, seconds: number): void;
  /** To be counted up by whoever serves a request. Null: of the base. */
  trafficOf(adapter: string | null): AdapterTraffic;
  betweenTokens(seconds: number): void;
  /** `course` where it had a token. */
  sequenceEnded(how: SequenceEnd, course: SequenceCourse | null): void;
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
const TOKENS = [1, 4, 16, 64, 256, 1024, 4096, 16_384, 65_536];
/** Of these, vLLM's latency is that of whole answers. */
const GENERATING = ['/v1/completions', '/v1/chat/completions'];

export function createMetrics(source: MetricsSource, now: () => number = Date.now): Metrics {
  const register = new Registry();
  collectDefaultMetrics({ register });
  const labels: EngineLabels = { engine: '0', model_name: source.baseModel };
  addScraped(register, source, { labels, now });
  const byAdapter = addByAdapter(register, source);
  const { firstToken, ...requests } = requestMetrics(register, labels);
  return {
    text: () => register.metrics(),
    contentType: register.contentType,
    ...requests,
    firstToken(adapter, seconds) {
      firstToken(seconds);
      byAdapter.firstToken(adapter, seconds);
    },
    trafficOf: (adapter) => byAdapter.trafficOf(adapter),
    ...sequenceMetrics(register, labels),
    ...adapterMetrics(register),
    ...adminMetrics(register),
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
    'From request to last byte of completions that were answered with 200.',
    REQUEST_SECONDS,
  );
  const first = histogram(register, LORIKEET.firstTokenSeconds, 'From request to first token.', FAST_SECONDS);
  const vllmFirst = labelled(
    register,
    labels,
    VLLM.firstTokenSeconds,
    'From request to first token, under its vLLM name.',
  );
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
  const observeCourse = courseMetrics(register, labels);
  const failed = counter(register, LORIKEET.failures, "Sequences that failed, by the engine's code.", [
    'code',
  ]);
  return {
    betweenTokens: (took: number) => between.observe(took),
    sequenceEnded(finished_reason: SequenceEnd, course: SequenceCourse | null) {
      ended.inc({ ...labels, finished_reason });
      if (course !== null) observeCourse(course);
    },
    sequenceFailed: (code: string) => failed.inc({ code }),
  };
}

function courseMetrics(register: Registry, labels: EngineLabels): (course: SequenceCourse) => void {
  const add = (name: string, help: string, buckets: number[]) =>
    labelled(register, labels, name, help, buckets);
  const queue = add(VLLM.queueSeconds, 'From taking a sequence in to its first step.', REQUEST_SECONDS);
  const prefill = add(
    VLLM.prefillSeconds,
    'From the first step of a sequence to its first token.',
    REQUEST_SECONDS,
  );
  const decode = add(VLLM.decodeSeconds, 'From the first token of a sequence to its last.', REQUEST_SECONDS);
  const prompt = add(VLLM.requestPromptTokens, 'Prompt tokens of a sequence that ended.', TOKENS);
  const generated = add(VLLM.requestGenerationTokens, 'Tokens that a sequence generated that ended.', TOKENS);
  return (course) => {
    queue.observe(course.queueSeconds);
    prefill.observe(course.prefillSeconds);
    decode.observe(course.decodeSeconds);
    prompt.observe(course.promptTokens);
    generated.observe(course.generatedTokens);
  };
}

function adapterMetrics(register: Registry) {
  const stages = histogram(register, LORIKEET.stageSeconds, 'Bringing a revision into a slot.', FAST_SECONDS);
  const loads = histogram(
    register,
    VLLM.adapterLoadSeconds,
    'Bringing a revision into a slot, under its vLLM name.',
    FAST_SECONDS,
  );
  const evictions = counter(register, LORIKEET.evictions, 'Revisions that gave up their slots for others.');
  const swaps = counter(register, LORIKEET.swaps, 'Staged revisions that were made current.');
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
  // An alert asks for its increase, which does not show the first of a series that was not there.
  refusals.inc({ code: 'unauthenticated' }, 0);
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
