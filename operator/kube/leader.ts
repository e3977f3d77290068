import { isApiError } from './api-error.ts';
import { type Clock, pause, systemClock } from './clock.ts';
import type { Log } from './log.ts';
import { apiVersionOf, type KubeObject, LEASES, pathOf } from './resource.ts';
import type { Rest } from './rest.ts';

export interface Leadership {
  /** The lease's count of transitions: grows with every change of leader, so that it can fence. */
  term: number;
}

export interface Holder {
  identity: string;
  annotations: Record<string, string>;
}

export interface ElectorOptions {
  rest: Rest;
  namespace: string;
  name: string;
  /** Different for every process that may run: whoever comes with the holder's own takes the lease at once. */
  identity: string;
  /** Written onto the lease while this process leads, for the others to read: where the leader listens. */
  annotations: Record<string, string>;
  /** Called once, when another one has the lease that was ours. The process must exit: what it knows may be old. */
  onLost: () => void;
  log: Log;
  clock?: Clock;
  random?: () => number;
}

interface LeaseObject extends KubeObject {
  spec?: {
    holderIdentity?: string | null;
    leaseDurationSeconds?: number;
    acquireTime?: string | null;
    renewTime?: string | null;
    leaseTransitions?: number;
  };
}

/** What was last seen of the lease, and when by our own clock: the times written on it are never compared with ours. */
interface Observed {
  lease: LeaseObject;
  changedAtMs: number;
}

/** A dead leader is succeeded after LEASE_MS; a live one pauses after RENEW_DEADLINE_MS, which is sooner. */
const LEASE_MS = 6_000;
const RENEW_DEADLINE_MS = 4_500;
const RETRY_MS = 1_000;
const PAUSED_RETRY_MS = 500;
const REQUEST_MS = 2_000;
const RELEASE_MS = 2_000;
const TERM_EPOCH_MS = Date.UTC(2026, 0, 1);

/**
 * One leader among the processes that name the same lease. `leading` is null from the moment the renewal deadline has
 * passed, even where the event loop was blocked and no timer has fired yet: look at it before each outward act.
 *
 *   follows ──lease free──▶ leads ──deadline passed──▶ pauses ──the lease is still ours, and renewed──▶ leads
 *                             └───another one's name or term on it, or no lease──┴──▶ lost, for good
 *
 * A lease that still has our name and our term had no other leader in between, however long nobody could be asked.
 */
export class Elector {
  readonly #options: ElectorOptions;
  readonly #clock: Clock;
  readonly #random: () => number;
  readonly #firstTerm = Promise.withResolvers<Leadership>();
  #observed: Observed | null = null;
  #leadership: Leadership | null = null;
  /** When the last successful renewal was sent. */
  #renewedAtMs = 0;
  #started = false;

  constructor(options: ElectorOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#random = options.random ?? Math.random;
    // Whoever never asks must not be told by an unhandled rejection.
    this.#firstTerm.promise.catch(() => {});
  }

  get leading(): Leadership | null {
    return this.#leadership !== null && !this.#deadlinePassed() ? this.#leadership : null;
  }

  /** Resolves when this process first leads; rejects when `run` ends before. */
  whenLeading(): Promise<Leadership> {
    return this.#firstTerm.promise;
  }

  /** Who leads as far as this process knows; null where nobody does or the lease has run out. */
  holder(): Holder | null {
    if (this.#observed === null || this.#isFree(this.#observed)) return null;
    const { metadata, spec } = this.#observed.lease;
    return { identity: spec?.holderIdentity ?? '', annotations: { ...metadata.annotations } };
  }

  /**
   * Runs until leadership is lost or the signal aborts; then it gives the lease back, so stop what needs it first.
   * May be called once.
   */
  async run(signal: AbortSignal): Promise<void> {
    if (this.#started) throw new Error('Expected run to be called once per Elector');
    this.#started = true;
    while (!signal.aborted) {
      try {
        if (this.#leadership === null) await this.#tryToAcquire(signal);
        else await this.#renew(this.#leadership, signal);
      } catch (error) {
        if (error instanceof Lost) {
          this.#lose(error);
          return;
        }
        if (!signal.aborted) this.#options.log.warn({ err: error }, 'the lease could not be read or written');
      }
      await pause(this.#clock, this.#pauseMs(), signal);
    }
    if (this.#leadership !== null) await this.#release(this.#leadership);
    this.#firstTerm.reject(signal.reason);
  }

  /** A lease that runs out is reached for at that moment. */
  #pauseMs(): number {
    if (this.#leadership !== null) return this.#deadlinePassed() ? PAUSED_RETRY_MS : RETRY_MS;
    const spreadMs = RETRY_MS * (1 + 0.2 * this.#random());
    if (this.#observed === null) return spreadMs;
    const leftMs = this.#observed.changedAtMs + LEASE_MS - this.#clock.monotonicMs();
    return leftMs > 0 ? Math.min(leftMs, spreadMs) : spreadMs;
  }

  async #tryToAcquire(signal: AbortSignal): Promise<void> {
    const lease = await this.#read(signal);
    if (lease === null) {
      const term = Math.floor((this.#clock.date().getTime() - TERM_EPOCH_MS) / 1000);
      return this.#acquire(
        { name: this.#options.name, namespace: this.#options.namespace },
        Math.max(term, 0),
        signal,
      );
    }
    const observed = this.#observe(lease);
    if (!this.#isFree(observed)) return;
    await this.#acquire(lease.metadata, (lease.spec?.leaseTransitions ?? 0) + 1, signal);
  }

  async #acquire(metadata: KubeObject['metadata'], term: number, signal: AbortSignal): Promise<void> {
    try {
      await this.#write(metadata, { term, acquireTime: microTime(this.#clock.date()) }, signal);
    } catch (error) {
      if (isApiError(error, 409)) return; // Another one was quicker.
      throw error;
    }
    this.#leadership = { term };
    this.#options.log.info({ term, identity: this.#options.identity }, 'leading');
    this.#firstTerm.resolve(this.#leadership);
  }

  async #renew({ term }: Leadership, signal: AbortSignal): Promise<void> {
    const hadPaused = this.#deadlinePassed();
    // Written over the version that we wrote last: that succeeds only where nobody else has written since.
    const { metadata, spec } = (this.#observed as Observed).lease;
    try {
      await this.#write(metadata, { term, acquireTime: spec?.acquireTime ?? null }, signal);
    } catch (error) {
      if (isApiError(error, 404)) throw new Lost('the lease was deleted');
      if (isApiError(error, 409)) await this.#confirmStillOurs(term, signal);
      else this.#options.log.warn({ err: error }, 'the lease could not be renewed');
    }
    this.#tellPause(hadPaused);
  }

  #tellPause(hadPaused: boolean): void {
    const isPaused = this.#deadlinePassed();
    if (isPaused === hadPaused) return;
    if (isPaused) this.#options.log.warn({}, 'leading pauses: the lease was not renewed in time');
    else this.#options.log.info({}, 'leading again: nobody else had the lease');
  }

  /** Somebody wrote the lease: an annotation, which the next renewal takes along, or their own name. */
  async #confirmStillOurs(term: number, signal: AbortSignal): Promise<void> {
    const lease = await this.#read(signal);
    const { holderIdentity, leaseTransitions } = lease?.spec ?? {};
    if (lease === null || holderIdentity !== this.#options.identity || leaseTransitions !== term) {
      throw new Lost(`the lease is held by ${holderIdentity ?? 'nobody'}`);
    }
    await this.#write(lease.metadata, { term, acquireTime: lease.spec?.acquireTime ?? null }, signal);
  }

  /** Creates the lease, or writes it over the version that `metadata` names; remembers when this was sent. */
  async #write(
    metadata: KubeObject['metadata'],
    { term, acquireTime }: { term: number; acquireTime: string | null },
    signal: AbortSignal,
  ): Promise<void> {
    const { rest, namespace, name, identity, annotations } = this.#options;
    const sentAtMs = this.#clock.monotonicMs();
    const exists = metadata.resourceVersion !== undefined;
    const written = await rest.request<LeaseObject>({
      method: exists ? 'PUT' : 'POST',
      path: pathOf(LEASES, exists ? { namespace, name } : { namespace }),
      body: {
        apiVersion: apiVersionOf(LEASES),
        kind: LEASES.kind,
        metadata: { ...metadata, annotations: { ...metadata.annotations, ...annotations } },
        spec: {
          holderIdentity: identity,
          leaseDurationSeconds: LEASE_MS / 1000,
          acquireTime,
          renewTime: microTime(this.#clock.date()),
          leaseTransitions: term,
        },
      },
      signal,
      timeoutMs: REQUEST_MS,
      lane: 'lease',
    });
    this.#renewedAtMs = sentAtMs;
    this.#observe(written);
  }

  async #read(signal: AbortSignal): Promise<LeaseObject | null> {
    const { rest, namespace, name } = this.#options;
    try {
      return await rest.request<LeaseObject>({
        method: 'GET',
        path: pathOf(LEASES, { namespace, name }),
        signal,
        timeoutMs: REQUEST_MS,
        lane: 'lease',
      });
    } catch (error) {
      if (isApiError(error, 404)) return null;
      throw error;
    }
  }

  #observe(lease: LeaseObject): Observed {
    const known = this.#observed;
    const same = known !== null && JSON.stringify(known.lease.spec) === JSON.stringify(lease.spec);
    this.#observed = { lease, changedAtMs: same ? known.changedAtMs : this.#clock.monotonicMs() };
    return this.#observed;
  }

  #isFree({ lease, changedAtMs }: Observed): boolean {
    const holder = lease.spec?.holderIdentity;
    // A process of our own name came before us and is gone.
    if (!holder || (holder === this.#options.identity && this.#leadership === null)) return true;
    return this.#clock.monotonicMs() - changedAtMs >= LEASE_MS;
  }

  #msToDeadline(): number {
    return this.#renewedAtMs + RENEW_DEADLINE_MS - this.#clock.monotonicMs();
  }

  #deadlinePassed(): boolean {
    return this.#msToDeadline() <= 0;
  }

  #lose(error: Lost): void {
    this.#leadership = null;
    this.#options.log.error({ err: error }, 'leadership lost');
    this.#options.onLost();
  }

  async #release({ term }: Leadership): Promise<void> {
    const stillHeld = !this.#deadlinePassed();
    this.#leadership = null;
    if (!stillHeld) return;
    try {
      await this.#giveBack((this.#observed as Observed).lease, term);
    } catch (error) {
      this.#options.log.warn({ err: error }, 'the lease could not be given back; it runs out by itself');
    }
  }

  async #giveBack({ metadata, spec }: LeaseObject, term: number): Promise<void> {
    const { rest, namespace, name, identity } = this.#options;
    const path = pathOf(LEASES, { namespace, name });
    const released = { ...spec, holderIdentity: '', leaseDurationSeconds: 1, leaseTransitions: term };
    const body = { apiVersion: apiVersionOf(LEASES), kind: LEASES.kind, metadata, spec: released };
    try {
      await rest.request({ method: 'PUT', path, body, timeoutMs: RELEASE_MS, lane: 'lease' });
    } catch (error) {
      if (!isApiError(error, 409)) throw error;
      // A renewal that was cut short on our side arrived all the same.
      const lease = await rest.request<LeaseObject>({
        method: 'GET',
        path,
        timeoutMs: RELEASE_MS,
        lane: 'lease',
      });
      const isOurs = lease.spec?.holderIdentity === identity && lease.spec.leaseTransitions === term;
      if (isOurs && lease.metadata.resourceVersion !== metadata.resourceVersion)
        await this.#giveBack(lease, term);
    }
  }
}

class Lost extends Error {}

function microTime(date: Date): string {
  return date.toISOString().replace('Z', '000Z');
}
