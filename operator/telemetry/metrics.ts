import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import { ERRORS } from '../../server/contract/errors.ts';
import type { DropCause } from '../kube/events.ts';
import type { PacedLane } from '../kube/rest.ts';
import { Thrash } from './thrash.ts';

const PHASE_SECONDS = [0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300];
const WAIT_SECONDS = [0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60];
const SWAP_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5];

/** All that these labels may be: a series is there from the start, so that its first increase shows. */
const DROP_CAUSES: readonly DropCause[] = ['full', 'limited', 'failed'];
const LANES: readonly PacedLane[] = ['usual', 'review'];
const PUSH_CODES = ['ok', 'noop', 'client_gone', ...Object.keys(ERRORS)];
const PUSH_STAGES = ['auth', 'receive', 'stage', 'activate'] as const;
const STATUS_KINDS = ['adapters', 'pools'] as const;
type StatusKind = (typeof STATUS_KINDS)[number];

/** Of an accepted push, from its request to its reply. */
export type PushTimings = Record<`${(typeof PUSH_STAGES)[number] | 'total'}Ms`, number>;

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
  readonly #pushStages: Histogram<'stage'>;
  readonly #pushesInFlight: Gauge;
  readonly #pushBytesInFlight: Gauge;
  readonly #eventsDropped: Counter<'cause'>;
  readonly #apiWait: Histogram<'lane'>;
  readonly #statusLag: Histogram<'kind'>;
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
    const pushes = named(
      'push_requests_total',
      'Pushes by ok, noop, client_gone, or the code of the refusal',
    );
    this.#pushRequests = new Counter({ ...pushes, labelNames: ['code'] });
    for (const code of PUSH_CODES) this.#pushRequests.inc({ code }, 0);
    this.#pushBytes = new Counter(named('push_bytes_total', 'Bytes of accepted pushes'));
    const duration = named('push_duration_seconds', 'Accepted pushes from the request to the reply');
    this.#pushDuration = new Histogram({ ...duration, buckets: PHASE_SECONDS });
    const stages = named(
      'push_stage_duration_seconds',
      'Accepted pushes by stage: auth, receive (first byte to last), stage (until pods have it), activate',
    );
    this.#pushStages = new Histogram({ ...stages, labelNames: ['stage'], buckets: PHASE_SECONDS });
    for (const stage of PUSH_STAGES) this.#pushStages.zero({ stage });
    this.#pushesInFlight = new Gauge(named('push_in_flight', 'Pushes that are being taken in'));
    this.#pushBytesInFlight = new Gauge(
      named('push_in_flight_bytes', 'Their declared bytes, or the most that they may have'),
    );
    const dropped = named(
      'events_dropped_total',
      'Events not written: full (too many wait), limited (too many about one object), failed (refused)',
    );
    this.#eventsDropped = new Counter({ ...dropped, labelNames: ['cause'] });
    for (const cause of DROP_CAUSES) this.#eventsDropped.inc({ cause }, 0);
    const wait = named(
      'api_wait_seconds',
      'How long calls to the API server waited for their turn in this process',
    );
    this.#apiWait = new Histogram({ ...wait, labelNames: ['lane'], buckets: WAIT_SECONDS });
    for (const lane of LANES) this.#apiWait.zero({ lane });
    const lag = named('status_lag_seconds', 'From the first decision that status did not show to its write');
    this.#statusLag = new Histogram({ ...lag, labelNames: ['kind'], buckets: PHASE_SECONDS });
    for (const kind of STATUS_KINDS) this.#statusLag.zero({ kind });
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

  pushed(code: string, bytes: number, timings: PushTimings | null): void {
    this.#pushRequests.inc({ code });
    if (code !== 'ok' || timings === null) return;
    this.#pushBytes.inc(bytes);
    this.#pushDuration.observe(timings.totalMs / 1000);
    for (const stage of PUSH_STAGES) this.#pushStages.observe({ stage }, timings[`${stage}Ms`] / 1000);
  }

  eventDropped(cause: DropCause): void {
    this.#eventsDropped.inc({ cause });
  }

  apiWaited(lane: PacedLane, waitMs: number): void {
    this.#apiWait.observe({ lane }, waitMs / 1000);
  }

  statusWritten(kind: StatusKind, lagMs: number): void {
    this.#statusLag.observe({ kind }, lagMs / 1000);
  }

  inFlight(pushes: number, bytes: number): void {
    this.#pushesInFlight.set(pushes);
    this.#pushBytesInFlight.set(bytes);
  }
}
