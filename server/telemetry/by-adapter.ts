import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import { LORIKEET } from './metric-names.ts';
import type { MetricsSource } from './scraped.ts';

/** Counts of one adapter; whoever serves a request adds to them. */
export interface AdapterTraffic {
  requests: number;
  promptTokens: number;
  /** Of the prompts' tokens, those that had been computed before. */
  cachedTokens: number;
  generatedTokens: number;
}

/** Few, for there is such a histogram of each adapter. */
const FIRST_TOKEN_SECONDS = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
/** Names that are remembered though nobody scrapes. */
const NAMES_MAX = 4_096;

/** Series of the adapters that are there, and of no other: names of versions come and go with training. */
export class ByAdapter {
  readonly #source: MetricsSource;
  readonly #traffic = new Map<string, AdapterTraffic>();
  readonly #timed = new Set<string>();
  readonly #firstToken: Histogram<'adapter'>;

  constructor(register: Registry, source: MetricsSource) {
    this.#source = source;
    const forgetTimed = () => this.#forgetTimed();
    this.#firstToken = new Histogram({
      name: LORIKEET.adapterFirstTokenSeconds,
      help: 'From request to first token, by adapter; no adapter: the base.',
      labelNames: ['adapter'],
      buckets: FIRST_TOKEN_SECONDS,
      registers: [register],
      collect: forgetTimed,
    });
  }

  /** Of every adapter that is there and was asked for. */
  traffic(): ReadonlyMap<string, AdapterTraffic> {
    const there = this.#there();
    for (const name of this.#traffic.keys()) if (!there.has(name)) this.#traffic.delete(name);
    return this.#traffic;
  }

  trafficOf(adapter: string | null): AdapterTraffic {
    const name = adapter ?? '';
    const known = this.#traffic.get(name);
    if (known !== undefined) return known;
    if (this.#traffic.size >= NAMES_MAX) this.traffic();
    const fresh = { requests: 0, promptTokens: 0, cachedTokens: 0, generatedTokens: 0 };
    this.#traffic.set(name, fresh);
    return fresh;
  }

  firstToken(adapter: string | null, seconds: number): void {
    const name = adapter ?? '';
    if (this.#timed.size >= NAMES_MAX && !this.#timed.has(name)) this.#forgetTimed();
    this.#timed.add(name);
    this.#firstToken.observe({ adapter: name }, seconds);
  }

  #forgetTimed(): void {
    const there = this.#there();
    for (const adapter of this.#timed) {
      if (there.has(adapter)) continue;
      this.#timed.delete(adapter);
      this.#firstToken.remove({ adapter });
    }
  }

  #there(): Set<string> {
    const { resident, host } = this.#source.residency();
    return new Set(['', ...resident, ...host]);
  }
}

export function addByAdapter(register: Registry, source: MetricsSource): ByAdapter {
  const byAdapter = new ByAdapter(register, source);
  const counter = (name: string, help: string, key: keyof AdapterTraffic) =>
    new Counter({
      name,
      help,
      labelNames: ['adapter'],
      registers: [register],
      collect() {
        this.reset();
        for (const [adapter, counts] of byAdapter.traffic()) this.inc({ adapter }, counts[key]);
      },
    });
  counter(LORIKEET.adapterRequests, 'Requests taken in, by adapter; no adapter: the base.', 'requests');
  counter(
    LORIKEET.adapterGeneratedTokens,
    'Tokens generated, by adapter; no adapter: the base.',
    'generatedTokens',
  );
  counter(LORIKEET.prefixQueries, 'Prompt tokens that were looked up; no adapter: the base.', 'promptTokens');
  counter(
    LORIKEET.prefixHits,
    'Prompt tokens whose keys and values were there already; no adapter: the base.',
    'cachedTokens',
  );
  revisionGauges(register, source);
  return byAdapter;
}

/** Numbers and no labels: a label would make a new series with every push, on every pod. */
function revisionGauges(register: Registry, source: MetricsSource): void {
  type Current = ReturnType<MetricsSource['current']>[number];
  const gauge = (name: string, help: string, read: (current: Current) => number | null) =>
    new Gauge({
      name,
      help,
      labelNames: ['adapter'],
      registers: [register],
      collect() {
        this.reset();
        for (const current of source.current()) {
          const value = read(current);
          if (value !== null) this.set({ adapter: current.name }, value);
        }
      },
    });
  gauge(
    LORIKEET.adapterRevision,
    'The first twelve hexadecimal digits of the current revision, as a number.',
    ({ digest }) => Number.parseInt(digest.slice('sha256:'.length).slice(0, 12), 16),
  );
  gauge(
    LORIKEET.adapterStep,
    "The trainer's step of the current revision, where it has one.",
    ({ step }) => step,
  );
}
