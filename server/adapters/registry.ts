import { randomUUID } from 'node:crypto';
import type { Logger } from 'pino';
import type {
  ActivateReply,
  Fence,
  InFlight,
  PodState,
  RemoveReply,
  StageReply,
} from '../contract/adapter-api.ts';
import { isOlderFence } from '../contract/fence.ts';
import type { AdapterEngine, Switched } from '../engine/port.ts';
import { HashThread } from '../transfer/hash-thread.ts';
import { Serial } from '../transfer/serial.ts';
import {
  type Adapter,
  Adapters,
  requireCurrent,
  requireEarlier,
  requireNewerStep,
  superseded,
} from './adapters.ts';
import type { ActivateCall, Asked, RollbackCall, StageRequest } from './calls.ts';
import { ChangeWaits } from './change-waits.ts';
import { requireLater, requireNotOlder, staleFence } from './fences.ts';
import { type Held, HostTier } from './host-tier.ts';
import { LateComers } from './late-comers.ts';
import { Lookup } from './lookup.ts';
import { PodReport } from './pod-report.ts';
import { type BaseIdentity, currentOf, leasedIn, type PodLimits } from './pod-state.ts';
import { adapterNotFound, baseModelName, noEffect, revisionNotFound } from './refusals.ts';
import { hasNoEffect, newRevision, stageReply } from './replies.ts';
import { SlotTurns } from './slot-turns.ts';

const KEEP = 2;

export interface RegistryOptions {
  engine: AdapterEngine;
  baseModel: BaseIdentity;
  limits: PodLimits;
  /** Requests that may wait for a slot, and as many for a revision; and how many of one revision go on at once while others wait. */
  waiting: { max: number; turnMax: number };
  /** An adapter may have the base model's name, which then means the adapter. */
  mayShadowBase?: boolean;
  log: Logger;
}

/**
 * The adapters of a pod: served names, their revisions, the revisions' bytes in RAM, and which of them the engine
 * holds. The only caller of the engine's stage, activate, deactivate and release.
 *
 *           stage            activate               next activation, `keep` exceeded, or DELETE
 *   (none) ──────▶ staged ──────────▶ current ──▶ staged (kept) ──────────▶ gone, or retired while leased ──▶ gone
 *
 * Calls that change a name run one after the other, and so do those about a digest; a call holds its name before its
 * digest.
 */
export class Registry {
  readonly bootId = randomUUID();
  readonly tier: HostTier;
  readonly lookup: Lookup;
  /** What is said of the pod outside. */
  readonly report: PodReport;
  readonly hashing = new HashThread();
  /** Memory for the body of an adapter. */
  readonly allocate: (bytes: number) => Buffer;
  readonly #turns: SlotTurns;
  readonly #lateComers: LateComers;
  readonly baseModel: BaseIdentity;
  readonly limits: PodLimits;
  readonly #mayShadowBase: boolean;
  readonly #engine: AdapterEngine;
  readonly #log: Logger;
  readonly #adapters = new Adapters();
  readonly #names = new Serial();
  readonly #digests = new Serial();
  readonly #listeners = new Set<() => void>();
  #term = 0;
  #seeded = false;

  constructor(options: RegistryOptions) {
    this.#engine = options.engine;
    this.allocate = (bytes) => options.engine.allocate(bytes);
    this.#log = options.log;
    this.baseModel = options.baseModel;
    this.limits = options.limits;
    this.#mayShadowBase = options.mayShadowBase ?? false;
    this.tier = new HostTier(options.limits.hostBytes, {
      droppable: () => this.#droppable(),
      dropped: (digest) => this.#dropped(digest),
    });
    this.#turns = new SlotTurns({
      slots: options.engine.info.slots,
      waitingMax: options.waiting.max,
      turnMax: options.waiting.turnMax,
      slotsInUse: () => options.engine.snapshot().slots,
      bringIn: (digest) => this.#bringIn(digest),
    });
    this.#lateComers = new LateComers({
      isAwaited: (digest) => this.#adapters.isAwaited(digest, leasedIn(options.engine.snapshot())),
      hasRoom: () => this.#turns.waiters === 0 && this.#turns.hasRoom(),
      bringIn: (digest) => this.#bringIn(digest),
      onError: (error, digest) => this.#log.warn({ revision: digest, err: error }, 'it could not come in'),
    });
    this.lookup = new Lookup({
      baseModelName: options.baseModel.name,
      adapters: this.#adapters,
      engine: options.engine,
      tier: this.tier,
      turns: this.#turns,
      changes: new ChangeWaits({
        subscribe: (listener) => this.subscribe(listener),
        waitingMax: options.waiting.max,
      }),
    });
    this.report = new PodReport({ pod: this, adapters: this.#adapters, load: this.lookup.load });
    options.engine.onEnded(() => this.#wake());
    options.engine.onFreed((digest) => this.#freed(digest));
  }

  /** What each adapter's name means. */
  current(): { name: string; digest: string; step: number | null }[] {
    return currentOf(this.state());
  }

  /** Refuses names that nothing may be stored under, before a body is read. */
  requireName(name: string): void {
    if (name === this.baseModel.name && !this.#mayShadowBase) throw baseModelName(name);
  }

  /** Refuses an operator that is not the latest, and remembers the latest. */
  requireFence(fence: Fence | null): void {
    if (fence === null) return;
    if (fence.term < this.#term) throw staleFence({ term: this.#term, sequence: 0 }, fence);
    this.#term = fence.term;
  }

  /** Brings a revision into the pod without making it current. */
  async stage(request: StageRequest): Promise<StageReply> {
    try {
      return await this.#names.run(request.name, () => this.#stage(request));
    } finally {
      request.received.reservation.release();
      this.#changed();
    }
  }

  /** The reply for a revision that the pod holds already; null where it does not. */
  async restage(name: string, digest: string, asked: Asked): Promise<StageReply | null> {
    this.requireName(name);
    return this.#names.run(name, () =>
      this.#digests.run(digest, async () => {
        const held = this.tier.get(digest);
        if (held === undefined) return null;
        const reply = await this.#addKnown(name, held, asked);
        this.#changed();
        return reply;
      }),
    );
  }

  /** Makes a staged revision the one that the name stands for; waits for no engine step. */
  async activate(call: ActivateCall): Promise<ActivateReply> {
    const startedMs = performance.now();
    this.requireFence(call.fence ?? null);
    const reply = await this.#names.run(call.name, () => this.#activate(call));
    this.#changed();
    return { ...reply, durationMs: performance.now() - startedMs };
  }

  /** Makes an earlier revision current again, and lets none go. */
  async rollback({ name, to, expectCurrent, fence = null, inFlight }: RollbackCall): Promise<ActivateReply> {
    const startedMs = performance.now();
    this.requireFence(fence);
    const reply = await this.#names.run(name, async () => {
      const adapter = this.#adapters.find(name);
      if (adapter === undefined) throw adapterNotFound(name);
      const { digest } = requireEarlier(adapter, to);
      const keep = adapter.revisions.size;
      const activated = await this.#activate({ name, digest, expectCurrent, keep, fence, inFlight });
      if (activated.previous !== activated.revision) adapter.rolledBack = true;
      return activated;
    });
    this.#changed();
    return { ...reply, durationMs: performance.now() - startedMs };
  }

  /** Stage and activate as one change of the name: what a single-server training loop needs. */
  async put(
    request: StageRequest,
    { expectCurrent, inFlight }: { expectCurrent?: string | undefined; inFlight?: InFlight },
  ): Promise<StageReply & Omit<ActivateReply, 'durationMs'>> {
    const { name, received, step } = request;
    try {
      return await this.#names.run(name, async () => {
        const adapter = this.#adapters.find(name);
        const { digest } = received.incoming;
        requireNewerStep(adapter, step, digest);
        if (adapter?.current !== digest) requireCurrent(adapter, expectCurrent);
        const staged = await this.#stage(request);
        return { ...staged, ...(await this.#activate({ name, digest: staged.revision, inFlight })) };
      });
    } finally {
      received.reservation.release();
      this.#changed();
    }
  }

  /** Takes one revision, or the whole adapter (null), out of the pod. What is not there is gone already. */
  async remove(name: string, digest: string | null, fence: Fence | null): Promise<RemoveReply> {
    this.requireFence(fence);
    const reply = await this.#names.run(name, async () => {
      const adapter = this.#adapters.find(name);
      if (adapter === undefined) return { name, removed: [], leases: 0 };
      requireNotOlder(adapter, fence);
      const targets = [...adapter.revisions.keys()].filter((known) => digest === null || known === digest);
      if (adapter.current !== null && targets.includes(adapter.current)) {
        await this.#engine.deactivate(name);
        this.#adapters.withdraw(adapter);
      }
      let leases = 0;
      for (const target of targets) leases += await this.#removeRevision(adapter, target);
      return { name, removed: targets, leases };
    });
    this.#changed();
    return reply;
  }

  /** The bytes and the config of a revision, to bring it into another pod. */
  fetch(name: string, digest: string): Held {
    const revision = this.#adapters.find(name)?.revisions.get(digest);
    const held = revision?.retired === false ? this.tier.get(digest) : undefined;
    if (held === undefined) throw revisionNotFound(name, digest);
    this.tier.touch(digest);
    return held;
  }

  get seeded(): boolean {
    return this.#seeded;
  }

  /** The pod holds everything that it should. */
  markSeeded(fence: Fence | null): void {
    this.requireFence(fence);
    this.#seeded = true;
    this.#changed();
  }

  state(): PodState {
    return this.report.state();
  }

  /** Calls `listener` after each change; it must not throw. Returns how to end it. */
  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Called every TICK_MS: from time to time what the pod reports of its load is brought up to date. */
  tick(): void {
    if (this.report.tick()) this.#changed();
  }

  get subscribers(): number {
    return this.#listeners.size;
  }

  async #stage({ name, received, step, allowZeroEffect }: StageRequest): Promise<StageReply> {
    this.requireName(name);
    const { incoming, reservation, receiveMs, checkMs } = received;
    return this.#digests.run(incoming.digest, async () => {
      const known = this.tier.get(incoming.digest);
      if (known !== undefined) return this.#addKnown(name, known, { step, allowZeroEffect });
      const report = await this.#engine.stage(incoming);
      const zeroEffect = hasNoEffect(report, incoming.bound);
      if (zeroEffect && !allowZeroEffect) {
        await this.#engine.release(incoming.digest);
        throw noEffect();
      }
      const held = { ...incoming, pages: report.pages, rounded: report.rounded, zeroEffect };
      this.tier.add(held, reservation);
      const revision = this.#adapters.add(name, newRevision(held, step));
      this.#adapters.forgetRetired(held.digest);
      const { digest, body } = held;
      const { resident, evicted, packMs } = report;
      this.#log.info(
        { adapter: name, revision: digest, step, bytes: body.length, resident, evicted },
        'staged',
      );
      return stageReply(name, held, { revision, existed: false, timings: { receiveMs, checkMs, packMs } });
    });
  }

  async #addKnown(name: string, held: Held, { step, allowZeroEffect }: Asked): Promise<StageReply> {
    if (held.zeroEffect && !allowZeroEffect) throw noEffect();
    this.tier.touch(held.digest);
    const revision = this.#adapters.add(name, newRevision(held, step));
    this.#adapters.forgetRetired(held.digest);
    const { packMs } = await this.#engine.stage(held);
    return stageReply(name, held, { revision, existed: true, timings: { receiveMs: 0, checkMs: 0, packMs } });
  }

  async #activate(call: ActivateCall) {
    const { name, digest, expectCurrent, keep = KEEP, fence = null, inFlight = 'Finish', accepted } = call;
    const adapter = this.#adapters.find(name);
    const revision = adapter?.revisions.get(digest);
    if (adapter === undefined || revision === undefined || revision.retired)
      throw revisionNotFound(name, digest);
    const previous = adapter.current;
    // The same revision again is the retry of a call whose reply was lost.
    if (previous !== digest) {
      requireLater(adapter, fence);
      requireCurrent(adapter, expectCurrent);
    }
    const { engineStep, epoch } = await this.#digests.run(digest, async () => {
      const switched = previous === digest ? this.#now() : await this.#switchTo(name, digest, inFlight);
      if (previous !== digest || (fence !== null && !isOlderFence(fence, adapter.highestFence ?? fence))) {
        this.#adapters.makeCurrent(adapter, digest, { fence, accepted: accepted ?? null });
      }
      return switched;
    });
    for (const old of superseded(adapter, keep)) await this.#removeRevision(adapter, old.digest);
    this.#log.info({ adapter: name, revision: digest, previous, epoch }, 'activated');
    return { name, revision: digest, previous, epoch, visibleAtStep: engineStep };
  }

  /** In a slot where one is free; else the first request for it waits for one. */
  async #switchTo(name: string, digest: string, inFlight: InFlight): Promise<Switched> {
    const held = this.tier.get(digest);
    if (held === undefined) throw revisionNotFound(name, digest);
    this.tier.touch(digest);
    const { resident } = await this.#engine.stage(held);
    if (!resident) this.#lateComers.add(digest);
    return this.#engine.activate(name, digest, inFlight === 'Migrate');
  }

  /** True as well where the revision is gone: whoever waits for it is to look again. */
  async #bringIn(digest: string): Promise<boolean> {
    return this.#digests.run(digest, async () => {
      const held = this.tier.get(digest);
      if (held === undefined) return true;
      this.tier.touch(digest);
      const { resident } = await this.#engine.stage(held);
      if (resident) this.#changed();
      return resident;
    });
  }

  #now(): Switched {
    const { step, epoch } = this.#engine.snapshot();
    return { engineStep: step + 1, epoch };
  }

  /** Returns how many sequences still run on it; with none it is gone at once. */
  async #removeRevision(adapter: Adapter, digest: string): Promise<number> {
    return this.#digests.run(digest, async () => {
      const revision = adapter.revisions.get(digest);
      if (revision === undefined) return 0;
      this.#adapters.retire(adapter, revision);
      if (this.#adapters.namesOf(digest).length > 0) {
        this.#adapters.remove(adapter, digest);
        return 0;
      }
      const { leases } = await this.#engine.release(digest);
      this.tier.delete(digest);
      if (leases === 0) this.#adapters.remove(adapter, digest);
      return leases;
    });
  }

  #droppable(): (digest: string) => boolean {
    const kept = this.#adapters.currents();
    for (const revision of leasedIn(this.#engine.snapshot())) kept.add(revision);
    return (digest) => !kept.has(digest) && !this.#digests.isBusy(digest);
  }

  #dropped(digest: string): void {
    this.#log.info({ revision: digest }, 'dropped from the host tier');
    for (const adapter of this.#adapters.namesOf(digest)) this.#adapters.remove(adapter, digest);
    this.#engine.release(digest).catch((error: unknown) => {
      this.#log.warn({ revision: digest, err: error }, 'the engine could not release a dropped revision');
    });
  }

  #freed(digest: string): void {
    this.#adapters.forgetRetired(digest);
    this.#changed();
  }

  #wake(): void {
    this.#turns.wake();
    this.#lateComers.wake();
  }

  #changed(): void {
    this.#wake();
    for (const listener of this.#listeners) listener();
  }
}
