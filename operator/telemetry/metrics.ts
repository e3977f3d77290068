import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import { Thrash } from './thrash.ts';

const PHASE_SECONDS = [0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300];
const SWAP_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5];

/** What is counted as it happens; what is read off the caches at a scrape is in operator/telemetry/gauges.ts. */
export class OperatorMetrics {
  readonly registry = new Registry();
  readonly #phases: Histogram<'phase'>;
  readonly #swapDuration: Histogram;
  readonly #swapSkew: Histogram;
  readonly #failures: Counter<'reason'>;
  readonly #thrash: Counter;
  readonly #evictions: Counter<'reason'>;
  readonly #pushRequests: Counter<'code'>;
  readonly #pushBytes: Counter;
  readonly #pushDuration: Histogram;
  readonly #pushesInFlight: Gauge;
  readonly #pushBytesInFlight: Gauge;
  readonly #loads: Thrash;

  constructor(monotonicMs: () => number) {
    const registers = [this.registry];
    const named = (name: string, help: string) => ({ name: `lorikeet_operator_${name}`, help, registers });
    this.#loads = new Thrash(monotonicMs);
    this.#phases = new Histogram({
      ...named('phase_duration_seconds', 'How long one phase of bringing a revision into pods took'),
      labelNames: ['phase'],
      buckets: PHASE_SECONDS,
    });
    const buckets = SWAP_SECONDS;
    const swap = named('swap_duration_seconds', 'From the first order to activate to the last confirmation');
    this.#swapDuration = new Histogram({ ...swap, buckets });
    const skew = named('swap_skew_seconds', 'From the first confirmation of a swap to the last');
    this.#swapSkew = new Histogram({ ...skew, buckets });
    const failures = named('reconcile_errors_total', 'Failures by condition reason or by code of a pod');
    this.#failures = new Counter({ ...failures, labelNames: ['reason'] });
    this.#thrash = new Counter(
      named('thrash_total', 'Loads of one adapter into one pod beyond 3 in 10 minutes'),
    );
    const evictions = named('evictions_total', 'Adapters that the operator took out of a pod');
    this.#evictions = new Counter({ ...evictions, labelNames: ['reason'] });
    const pushes = named('push_requests_total', 'Pushes by ok, noop, or the code of the refusal');
    this.#pushRequests = new Counter({ ...pushes, labelNames: ['code'] });
    this.#pushBytes = new Counter(named('push_bytes_total', 'Bytes of accepted pushes'));
    const duration = named('push_duration_seconds', 'Accepted pushes from the request to the reply');
    this.#pushDuration = new Histogram({ ...duration, buckets: PHASE_SECONDS });
    this.#pushesInFlight = new Gauge(named('push_in_flight', 'Pushes that are being taken in'));
    this.#pushBytesInFlight = new Gauge(
      named('push_in_flight_bytes', 'Their declared bytes, or the most that they may have'),
    );
    collectDefaultMetrics({ register: this.registry });
  }

  phase(phase: string, ms: number): void {
    this.#phases.observe({ phase }, ms / 1000);
  }

  swap(durationMs: number, skewMs: number): void {
    this.#swapDuration.observe(durationMs / 1000);
    this.#swapSkew.observe(skewMs / 1000);
  }

  failure(reason: string): void {
    this.#failures.inc({ reason });
  }

  loaded(podUid: string, adapterUid: string): void {
    if (this.#loads.note(`${podUid} ${adapterUid}`)) this.#thrash.inc();
  }

  removed(reason: string): void {
    this.#evictions.inc({ reason });
  }

  pushed(code: string, bytes: number, totalMs: number): void {
    this.#pushRequests.inc({ code });
    if (code !== 'ok') return;
    this.#pushBytes.inc(bytes);
    this.#pushDuration.observe(totalMs / 1000);
  }

  inFlight(pushes: number, bytes: number): void {
    this.#pushesInFlight.set(pushes);
    this.#pushBytesInFlight.set(bytes);
  }
}
