import type {
  Engine,
  EngineEvent,
  EngineInfo,
  EngineSnapshot,
  GenerateRequest,
  LoraModule,
  StageReport,
} from '../../native/types.ts';

type Slot = EngineSnapshot['slots'][number] & { zeroEffect: boolean; lastUsed: number };

interface Running {
  request: GenerateRequest;
  revision: string;
  /** Of its submission or last move. */
  epoch: number;
}

/**
 * Slots, names and leases as the engine keeps them, without a model. `nextStageError` fails one staging; `gate`, while
 * set, holds stagings back; `lease` and `endLease` stand for running sequences, and requests run until `finish`; `step`
 * lets those move that should, and gives each the token that `nextToken` says.
 */
export class FakeEngine implements Engine {
  readonly info: EngineInfo;
  readonly current = new Map<string, string>();
  nextStageError: Error | null = null;
  gate: Promise<void> | null = null;
  kvBlocksUsed = 0;
  /** Every staging that packed bytes: what a resident revision is spared. */
  readonly packed: string[] = [];
  /** Revisions that running requests were to go on with. */
  readonly migrated: string[] = [];
  /** An activation is done before its caller hears of it. */
  beforeActivated: () => Promise<void> = async () => undefined;
  onLeased: (request: GenerateRequest, revision: string) => void = () => undefined;
  nextToken: (request: GenerateRequest, revision: string) => number = () => 0;
  readonly #running = new Map<number, Running>();
  /** By name, the epoch of the activation that running requests go on with; absent where they do not. */
  readonly #migrates = new Map<string, number>();
  readonly #slots: Slot[] = [];
  #onEvents: (events: EngineEvent[]) => void = () => undefined;
  #epoch = 0;
  #uses = 0;

  constructor(slots = 8) {
    this.info = {
      backend: 'reference',
      dtype: 'float32',
      memoryBytes: { weights: 0, kv: 0, pages: 0, activations: 0, graphs: 0 },
      slots,
      pages: 1024,
      kvBlocks: 64,
      blockTokens: 16,
    };
  }

  start = (onEvents: (events: EngineEvent[]) => void): Engine => {
    this.#onEvents = onEvents;
    return this;
  };

  async stage(revision: string, body: Uint8Array, modules: LoraModule[]): Promise<StageReport> {
    const resident = this.#find(revision);
    if (resident !== undefined) {
      resident.state = 'ready';
      return { ...report(resident, []), packMs: 0 };
    }
    await this.gate;
    const error = this.nextStageError;
    this.nextStageError = null;
    if (error !== null) throw error;
    requireFinite(body, modules);
    const evicted = this.#makeRoom();
    if (evicted === null) {
      const zeroEffect = isZero(body, modules);
      return { slot: null, pages: 0, zeroEffect, evicted: [], packMs: 0, rounded: 0 };
    }
    this.packed.push(revision);
    const slot = this.#add(revision, modules.length, isZero(body, modules));
    return report(slot, evicted);
  }

  async activate(
    adapter: string,
    revision: string,
    migrates: boolean,
  ): Promise<{ step: number; epoch: number }> {
    const slot = this.#find(revision);
    if (slot !== undefined) slot.lastUsed = ++this.#uses;
    if (this.current.get(adapter) !== revision) {
      this.#epoch += 1;
      this.#migrates.delete(adapter);
    }
    if (migrates) {
      this.migrated.push(revision);
      this.#migrates.set(adapter, this.#epoch);
    }
    this.current.set(adapter, revision);
    const epoch = this.#epoch;
    await this.beforeActivated();
    return { step: 1, epoch };
  }

  async deactivate(adapter: string): Promise<{ step: number; epoch: number }> {
    if (this.current.delete(adapter)) this.#epoch += 1;
    return { step: 1, epoch: this.#epoch };
  }

  async release(revision: string): Promise<{ leases: number }> {
    const slot = this.#find(revision);
    if (slot === undefined) return { leases: 0 };
    if (slot.leases > 0) slot.state = 'retired';
    else this.#free(slot);
    return { leases: slot.leases };
  }

  lease(revision: string): void {
    const slot = this.#find(revision);
    if (slot === undefined) throw new Error(`${revision} is in no slot`);
    slot.leases += 1;
  }

  endLease(revision: string): void {
    const freed = this.#endLease(revision);
    this.#onEvents([{ id: 0, type: 'finished', reason: 'stop', stopToken: null, logprobs: null }, ...freed]);
  }

  #endLease(revision: string): EngineEvent[] {
    const slot = this.#find(revision);
    if (slot === undefined) return [];
    slot.leases -= 1;
    if (slot.leases > 0 || slot.state !== 'retired') return [];
    this.#free(slot);
    return [{ id: 0, type: 'freed', revision }];
  }

  /** As an engine under pressure does it. */
  evict(revision: string): void {
    const slot = this.#find(revision);
    if (slot !== undefined) this.#free(slot);
  }

  submit(request: GenerateRequest): void {
    const { id, target } = request;
    if (target.kind === 'base') throw new Error('a fake engine has no base model');
    const revision = target.kind === 'revision' ? target.digest : this.current.get(target.name);
    const slot = revision === undefined ? undefined : this.#find(revision);
    if (slot?.state !== 'ready') {
      const code = revision === undefined ? 'adapter_not_found' : 'not_resident';
      this.#tell({ id, type: 'failed', code, message: 'as a real engine says it' });
      return;
    }
    slot.leases += 1;
    slot.lastUsed = ++this.#uses;
    this.#running.set(id, { request, revision: slot.revision, epoch: this.#epoch });
    this.#tell({ id, type: 'accepted', revision: slot.revision, step: 1 });
    this.onLeased(request, slot.revision);
  }

  cancel(id: number): void {
    this.finish(id);
  }

  /** Ends a request, and its lease. */
  finish(id: number): void {
    const running = this.#running.get(id);
    if (running === undefined) return;
    this.#running.delete(id);
    this.#tell({ id, type: 'finished', reason: 'stop', stopToken: null, logprobs: null });
    this.endLease(running.revision);
  }

  /** One engine step. */
  step(): void {
    const events: EngineEvent[] = [];
    for (const [id, running] of this.#running) {
      events.push(...this.#moveOn(id, running));
      const token = this.nextToken(running.request, running.revision);
      events.push({ id, type: 'token', token, logprobs: null });
    }
    this.#tell(...events);
  }

  #moveOn(id: number, running: Running): EngineEvent[] {
    const { target, policy } = running.request;
    if (target.kind !== 'adapter' || policy === 'pin') return [];
    if (policy === 'activation' && (this.#migrates.get(target.name) ?? 0) <= running.epoch) return [];
    const before = running.revision;
    const slot = this.#find(this.current.get(target.name) ?? '');
    if (slot?.state !== 'ready' || slot.revision === before) return [];
    slot.leases += 1;
    slot.lastUsed = ++this.#uses;
    running.revision = slot.revision;
    running.epoch = this.#epoch;
    return [...this.#endLease(before), { id, type: 'moved', revision: slot.revision }];
  }

  /** Ids of requests that have not ended. */
  get running(): number[] {
    return [...this.#running.keys()];
  }

  snapshot(): EngineSnapshot {
    return {
      step: 1,
      epoch: this.#epoch,
      running: 0,
      waiting: 0,
      kvBlocksUsed: this.kvBlocksUsed,
      pagesUsed: this.#slots.reduce((pages, slot) => pages + slot.pages, 0),
      slots: this.#slots.map(({ slot, revision, state, leases, pages }) => ({
        slot,
        revision,
        state,
        leases,
        pages,
      })),
      runningAdapters: [],
      waitingAdapters: [],
      promptTokens: 0,
      generatedTokens: 0,
      preemptions: 0,
      prefixTokensQueried: 0,
      prefixTokensHit: 0,
      phasesMs: {},
    };
  }

  resetPrefixCache(): void {}

  async close(): Promise<void> {
    const ended = [...this.#running];
    this.#running.clear();
    for (const [id, { revision }] of ended) {
      this.#tell({ id, type: 'failed', code: 'closing', message: 'The engine is closing' });
      this.endLease(revision);
    }
  }

  /** Not before whoever submitted can listen. */
  #tell(...events: EngineEvent[]): void {
    setImmediate(() => this.#onEvents(events));
  }

  #find(revision: string): Slot | undefined {
    return this.#slots.find((slot) => slot.revision === revision);
  }

  #add(revision: string, pages: number, zeroEffect: boolean): Slot {
    const lastUsed = ++this.#uses;
    const slot: Slot = {
      slot: this.#slots.length,
      revision,
      state: 'ready',
      leases: 0,
      pages,
      zeroEffect,
      lastUsed,
    };
    this.#slots.push(slot);
    return slot;
  }

  #free(slot: Slot): void {
    this.#slots.splice(this.#slots.indexOf(slot), 1);
  }

  /** What was evicted; null where every slot has leases. */
  #makeRoom(): string[] | null {
    if (this.#slots.length < this.info.slots) return [];
    const [idle] = this.#slots.filter(({ leases }) => leases === 0).sort((a, b) => a.lastUsed - b.lastUsed);
    if (idle === undefined) return null;
    this.#free(idle);
    return [idle.revision];
  }
}

export function engineError(code: string, message: string): Error {
  return Object.assign(new Error(message), { code });
}

function report({ slot, pages, zeroEffect }: Slot, evicted: string[]): StageReport {
  return { slot, pages, zeroEffect, evicted, packMs: 0.1, rounded: 0 };
}

/** The float32 values from `offset` to the next factor; enough for the fixtures that hold a fault. */
function values(body: Uint8Array, offset: number, count: number): Float32Array {
  return new Float32Array(new Uint8Array(body.subarray(offset, offset + 4 * count)).buffer);
}

function requireFinite(body: Uint8Array, modules: LoraModule[]): void {
  for (const [module, { a, b, rank }] of modules.entries()) {
    for (const [factor, { offset, dtype }] of Object.entries({ a, b })) {
      if (dtype !== 'F32' || values(body, offset, 16 * rank).every(Number.isFinite)) continue;
      throw Object.assign(engineError('non_finite', 'not finite'), { module, factor });
    }
  }
}

function isZero(body: Uint8Array, modules: LoraModule[]): boolean {
  return modules.every(
    ({ b, rank }) => b.dtype === 'F32' && values(body, b.offset, 16 * rank).every((v) => v === 0),
  );
}
