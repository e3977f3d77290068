import type { Logger } from 'pino';
import { LorikeetError } from '../contract/errors.ts';
import { Serial } from '../transfer/serial.ts';
import type { AdapterFolders } from './adapter-folders.ts';
import { EngineWatch } from './engine-watch.ts';
import { inspect } from './inspect.ts';
import { type EngineFacts, type EngineLoader, EngineRefusal, EngineSilent } from './loader.ts';
import { inPlainWords, requireFusible, requireUniform } from './plain-adapter.ts';
import type {
  AdapterEngine,
  Content,
  EngineInfo,
  EngineSnapshot,
  FailureCode,
  StageReport,
  Switched,
  Target,
} from './port.ts';

/** Of a name in the engine; what follows are the digits of the revision's digest. */
const NAME_PREFIX = 'lorikeet-';
/** One after the other: an engine loads and unloads in its own one thread. */
const ENGINE = 'engine';

interface Slot {
  digest: string;
  state: 'staging' | 'ready' | 'retired';
  leases: number;
  zeroEffect: boolean;
}

export interface AttachedOptions {
  loader: EngineLoader;
  folders: AdapterFolders;
  slots: number;
  reads: Pick<EngineFacts, 'scalesByModule' | 'fusesProjections'>;
  log: Logger;
}

export interface AttachedLease {
  /** Null: the base. */
  digest: string | null;
  /** To be called once. */
  leave(): void;
}

/** What a revision is called in the engine. A content has one name for ever, so nothing that is cached under it is stale. */
export function engineName(digest: string): string {
  return NAME_PREFIX + digest.slice('sha256:'.length);
}

/**
 * An engine of another project that runs beside this server, as an engine of ours: its slots are the adapters that it holds
 * under names of ours, a lease is a request that was sent on to it, and a swap is an entry of the table here. Its process
 * may end at any time; what it held is given to the next one before that gets a request.
 */
export class AttachedEngine implements AdapterEngine {
  readonly info: EngineInfo;
  readonly #options: AttachedOptions;
  /** By digest; the least recently used first. */
  readonly #slots = new Map<string, Slot>();
  readonly #current = new Map<string, string>();
  readonly #turns = new Serial();
  readonly #life = new AbortController();
  readonly #freedListeners: ((digest: string) => void)[] = [];
  readonly #endedListeners: (() => void)[] = [];
  readonly #watch: EngineWatch;
  #epoch = 0;
  #running = 0;
  #others: ReadonlySet<string> = new Set();

  private constructor(options: AttachedOptions) {
    this.#options = options;
    this.info = { slots: options.slots, pages: 0, kvBlocks: 0 };
    this.#watch = new EngineWatch({
      ...{ loader: options.loader, log: options.log },
      inTurn: (look) => this.#turns.run(ENGINE, look),
      restore: (adapters) => this.#restore(adapters),
      tidy: (adapters) => this.#tidy(adapters),
    });
    this.onAway((reason) => {
      if (reason === null) for (const listener of this.#endedListeners) listener();
    });
  }

  /** Takes the engine over as it is: adapters that an earlier process of ours left there go. It must answer. */
  static async open(options: AttachedOptions): Promise<AttachedEngine> {
    const engine = new AttachedEngine(options);
    await engine.#watch.look();
    return engine;
  }

  /** Why it is away; null while it is there. */
  get away(): string | null {
    return this.#watch.away;
  }

  /** Sequences that were sent on and have not ended. */
  get running(): number {
    return this.#running;
  }

  allocate(bytes: number): Buffer {
    return Buffer.allocUnsafeSlow(bytes);
  }

  async stage(content: Content): Promise<StageReport> {
    const startedMs = performance.now();
    const known = this.#slots.get(content.digest);
    if (known === undefined) this.#requireReadable(content);
    // What it holds was looked at.
    const zeroEffect = known?.zeroEffect ?? (await inspect(content));
    const taken = await this.#turns.run(ENGINE, () => this.#takeIn(content, zeroEffect));
    return { ...taken, pages: 0, zeroEffect, packMs: performance.now() - startedMs, rounded: 0 };
  }

  /** It would serve another one wrong, or end on it. */
  #requireReadable(content: Content): void {
    const { scalesByModule, fusesProjections } = this.#options.reads;
    if (!scalesByModule) requireUniform(content);
    if (fusesProjections) requireFusible(content);
  }

  async #takeIn(content: Content, zeroEffect: boolean): Promise<Pick<StageReport, 'resident' | 'evicted'>> {
    const known = this.#slots.get(content.digest);
    if (known !== undefined) {
      known.state = 'ready';
      this.#touch(known);
      return { resident: true, evicted: [] };
    }
    if (this.away !== null) throw this.#awayError();
    const evicted = await this.#makeRoom();
    if (evicted === null) return { resident: false, evicted: [] };
    const slot: Slot = { digest: content.digest, state: 'staging', leases: 0, zeroEffect };
    this.#slots.set(slot.digest, slot);
    try {
      const { folders, reads } = this.#options;
      const config = reads.scalesByModule ? content.config : inPlainWords(content);
      await folders.write(folderName(slot.digest), { config, body: content.body });
      await this.#load(slot.digest);
      slot.state = 'ready';
    } catch (error) {
      await this.#forget(slot);
      throw this.#refusal(error);
    }
    return { resident: true, evicted };
  }

  /** It is there, and computes. */
  async #load(digest: string): Promise<void> {
    const { loader, folders } = this.#options;
    const { signal } = this.#life;
    await loader.load(engineName(digest), folders.pathOf(folderName(digest)), signal);
    await loader.probe(engineName(digest), signal);
  }

  /** What went for it; null where nothing may go. */
  async #makeRoom(): Promise<string[] | null> {
    if (this.#slots.size < this.info.slots) return [];
    const victim = [...this.#slots.values()].find(({ leases }) => leases === 0);
    if (victim === undefined) return null;
    await this.#forget(victim);
    return [victim.digest];
  }

  /** Nobody runs on it. What the engine does not take back now is taken back after a later look. */
  async #forget(slot: Slot): Promise<void> {
    this.#slots.delete(slot.digest);
    const { loader, folders, log } = this.#options;
    await loader.unload(engineName(slot.digest), this.#life.signal).catch((err: unknown) => {
      log.warn({ revision: slot.digest, err }, 'the engine did not unload it');
    });
    await folders.remove(folderName(slot.digest));
  }

  async activate(adapter: string, digest: string): Promise<Switched> {
    this.#current.set(adapter, digest);
    return this.#switched();
  }

  async deactivate(adapter: string): Promise<Switched> {
    this.#current.delete(adapter);
    return this.#switched();
  }

  #switched(): Switched {
    this.#epoch += 1;
    return { engineStep: this.#epoch, epoch: this.#epoch };
  }

  async release(digest: string): Promise<{ leases: number }> {
    const slot = this.#slots.get(digest);
    if (slot === undefined) return { leases: 0 };
    slot.state = 'retired';
    if (slot.leases === 0) await this.#free(digest);
    return { leases: slot.leases };
  }

  /** Unless it was staged again, or leased, before its turn came. */
  async #free(digest: string): Promise<void> {
    await this.#turns.run(ENGINE, async () => {
      const slot = this.#slots.get(digest);
      if (slot?.state === 'retired' && slot.leases === 0) await this.#forget(slot);
    });
  }

  onFreed(listener: (digest: string) => void): void {
    this.#freedListeners.push(listener);
  }

  onEnded(listener: () => void): void {
    this.#endedListeners.push(listener);
  }

  /** Hears of each change, with null where the engine is there again. */
  onAway(listener: (reason: string | null) => void): void {
    this.#watch.onAway(listener);
  }

  snapshot(): EngineSnapshot {
    const slots = [...this.#slots.values()].map(({ digest, state, leases }) => {
      return { revision: digest, state, leases };
    });
    return { step: this.#epoch, epoch: this.#epoch, pagesUsed: 0, kvBlocksUsed: 0, slots };
  }

  /** Nothing of ours: its cache is keyed by names that mean one content each. */
  resetPrefixCache(): void {}

  /** A request that is sent on has its revision until it leaves; or why none is to be had. */
  lease(target: Target): AttachedLease | FailureCode {
    const slot = this.#find(target);
    if (typeof slot === 'string') return slot;
    this.#running += 1;
    if (slot !== null) {
      slot.leases += 1;
      this.#touch(slot);
    }
    const leave = () => {
      this.#running -= 1;
      if (slot !== null) this.#ended(slot);
    };
    return { digest: slot?.digest ?? null, leave };
  }

  /** Null: the base. */
  #find(target: Target): Slot | FailureCode | null {
    if (this.away !== null) return 'engine_away';
    if (target.kind === 'base') return null;
    const digest = target.kind === 'revision' ? target.digest : this.#current.get(target.name);
    if (digest === undefined) return 'adapter_not_found';
    const slot = this.#slots.get(digest);
    return slot === undefined || slot.state === 'staging' ? 'not_resident' : slot;
  }

  #ended(slot: Slot): void {
    slot.leases -= 1;
    for (const listener of this.#endedListeners) listener();
    if (slot.leases > 0 || slot.state !== 'retired') return;
    void this.#free(slot.digest).then(() => {
      for (const listener of this.#freedListeners) listener(slot.digest);
    });
  }

  #touch(slot: Slot): void {
    if (!this.#slots.delete(slot.digest)) return;
    this.#slots.set(slot.digest, slot);
  }

  /** A request met something that does not look right. Resolves when the engine has been looked at, and given what it lacks. */
  suspect(): Promise<void> {
    return this.#watch.look();
  }

  /** A model of its own, which is none of the adapters here. */
  serves(name: string): boolean {
    return this.#others.has(name);
  }

  close(): void {
    this.#life.abort();
    this.#watch.close();
  }

  async #restore(adapters: ReadonlySet<string>): Promise<void> {
    const missing = [...this.#slots.keys()].filter((digest) => !adapters.has(engineName(digest)));
    if (missing.length > 0) this.#watch.leave(`${missing.length} adapters are gone from it`);
    for (const digest of missing) await this.#loadAgain(digest);
  }

  /** What carries a name of ours and is in no slot. */
  async #tidy(adapters: ReadonlySet<string>): Promise<void> {
    const names = new Set([...this.#slots.keys()].map(engineName));
    const ours = [...adapters].filter((name) => name.startsWith(NAME_PREFIX));
    this.#others = new Set([...adapters].filter((name) => !ours.includes(name)));
    for (const name of ours) if (!names.has(name)) await this.#options.loader.unload(name, this.#life.signal);
  }

  /** What it refuses now is brought in again by the first request for it, which is then told why not. */
  async #loadAgain(digest: string): Promise<void> {
    try {
      await this.#load(digest);
    } catch (error) {
      if (!(error instanceof EngineRefusal)) throw error;
      this.#options.log.error({ revision: digest, err: error }, 'the engine refuses what it held before');
      this.#slots.delete(digest);
      await this.#options.folders.remove(folderName(digest));
    }
  }

  #awayError(): LorikeetError {
    return new LorikeetError('engine_away', `The engine is away: ${this.away}`);
  }

  #refusal(error: unknown): LorikeetError {
    if (error instanceof LorikeetError) return error;
    if (error instanceof EngineRefusal)
      return new LorikeetError('unsupported_adapter_feature', `The engine refuses it: ${error.message}`, {
        field: this.#options.loader.kind,
        actual: error.status,
        cause: error,
      });
    if (error instanceof EngineSilent) {
      void this.suspect();
      return new LorikeetError('engine_away', `The engine did not take it: ${error.message}`, {
        cause: error,
      });
    }
    return new LorikeetError('internal', 'The engine could not take the revision in', { cause: error });
  }
}

function folderName(digest: string): string {
  return digest.slice('sha256:'.length);
}
