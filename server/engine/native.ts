import { allocateBody, backends, createEngine } from '../../native/index.ts';
import type { Engine, EngineEvent, EngineOptions } from '../../native/types.ts';
import { EventQueue } from './event-queue.ts';
import { engineCode, engineRefusal } from './native-errors.ts';
import type {
  AdapterEngine,
  Content,
  GenerateRequest,
  RequestEvent,
  SequenceCourse,
  StageReport,
  StepOf,
  Switched,
  TokenEngine,
} from './port.ts';
import { StepWatch } from './step-watch.ts';

/** Hears how long things take, and how they end. */
export interface EngineTimings {
  /** Of a revision that was in no slot. */
  staged(seconds: number): void;
  evicted(revisions: number): void;
  swapped(seconds: number): void;
  /** From one token of a sequence to its next. */
  betweenTokens(seconds: number): void;
  /** A reader that leaves has what it wanted: a stop string came. */
  sequenceEnded(how: 'stop' | 'length' | 'abort', course: SequenceCourse | null): void;
  sequenceFailed(code: string): void;
}

/** A request that has not ended. */
interface Live {
  queue: EventQueue<RequestEvent>;
  stepOf: StepOf;
  promptTokens: number;
  submittedMs: number;
  /** Of its first step, first token and last token; null before. */
  startedMs: number | null;
  firstTokenMs: number | null;
  tokenMs: number | null;
  generatedTokens: number;
}

/**
 * The server's way to the native addon. It gives requests their ids and brings each event to the request that waits
 * for it. A request's queue holds at most its prompt's log-probabilities and `maxTokens` tokens; how many requests there
 * are at once is bounded by the engine, which refuses one more with `queue_full`.
 */
export class NativeEngine implements AdapterEngine, TokenEngine {
  private readonly addon: Engine;
  private readonly watch: StepWatch;
  private readonly requests = new Map<number, Live>();
  private readonly freedListeners: ((digest: string) => void)[] = [];
  private readonly endedListeners: (() => void)[] = [];
  private readonly failedListeners: ((reason: string) => void)[] = [];
  private timings: EngineTimings | null = null;
  private nextId = 1;
  private failure: string | null = null;
  private lastSnapshot: ReturnType<Engine['snapshot']> | null = null;

  /** Whether the KV cache and the slots are in the machine's memory, and not in a device's. */
  static usesHostMemory(backend: string): boolean {
    const taken = backend === 'auto' ? backends().find(({ available }) => available)?.name : backend;
    return taken !== 'cuda';
  }

  static open(options: EngineOptions, watch: StepWatch): NativeEngine {
    return new NativeEngine((onEvents) => createEngine(options, onEvents), watch);
  }

  constructor(
    start: (onEvents: (events: EngineEvent[]) => void) => Engine,
    watch: StepWatch = new StepWatch(0),
  ) {
    this.watch = watch;
    this.addon = start((events) => this.deliver(events));
  }

  async *generate(
    request: GenerateRequest,
    signal: AbortSignal,
    stepOf: StepOf = () => null,
  ): AsyncGenerator<RequestEvent> {
    signal.throwIfAborted();
    const id = this.nextId++;
    const cancel = () => this.cancel(id);
    const refused = this.submit({ ...request, id });
    if (refused !== null) {
      yield refused;
      return;
    }
    const live = newLive(stepOf, request.prompt.length);
    this.requests.set(id, live);
    signal.addEventListener('abort', cancel, { once: true });
    let ended = false;
    try {
      while (!ended) {
        const event = await live.queue.next();
        ended = isLast(event);
        yield event;
      }
    } finally {
      signal.removeEventListener('abort', cancel);
      const runs = this.requests.delete(id);
      if (!ended) cancel();
      const how = signal.aborted || live.tokenMs === null ? 'abort' : 'stop';
      if (runs) this.timings?.sequenceEnded(how, courseOf(live));
    }
  }

  get info(): Engine['info'] {
    return this.addon.info;
  }

  onTimed(timings: EngineTimings): void {
    this.timings = timings;
  }

  allocate(bytes: number): Buffer {
    return allocateBody(bytes);
  }

  async stage({ digest, body, bound }: Content): Promise<StageReport> {
    const startedMs = performance.now();
    try {
      const report = await this.addon.stage(digest, body, bound.modules);
      // A revision that is resident already is not packed.
      if (report.packMs > 0) this.timings?.staged(secondsSince(startedMs));
      this.timings?.evicted(report.evicted.length);
      return { ...report, resident: report.slot !== null };
    } catch (error) {
      throw engineRefusal(error, bound.modules);
    }
  }

  async activate(adapter: string, digest: string, migrates: boolean): Promise<Switched> {
    const startedMs = performance.now();
    try {
      const { step, epoch } = await this.addon.activate(adapter, digest, migrates);
      this.timings?.swapped(secondsSince(startedMs));
      return { engineStep: step, epoch };
    } catch (error) {
      throw engineRefusal(error, []);
    }
  }

  async deactivate(adapter: string): Promise<Switched> {
    const { step, epoch } = await this.addon.deactivate(adapter).catch(refuse);
    return { engineStep: step, epoch };
  }

  async release(digest: string): Promise<{ leases: number }> {
    return await this.addon.release(digest).catch(refuse);
  }

  /** Once the engine closes, what it was then, without the requests: it ends them. */
  snapshot(): ReturnType<Engine['snapshot']> {
    return this.lastSnapshot ?? this.addon.snapshot();
  }

  resetPrefixCache(): void {
    this.addon.resetPrefixCache();
  }

  onEnded(listener: () => void): void {
    this.endedListeners.push(listener);
  }

  onFreed(listener: (digest: string) => void): void {
    this.freedListeners.push(listener);
  }

  /** Requests that have not ended. */
  get live(): number {
    return this.requests.size;
  }

  /** Calls the listener with the reason once the engine can serve nobody any more. */
  onFailed(listener: (reason: string) => void): void {
    this.failedListeners.push(listener);
  }

  get failed(): string | null {
    if (this.failure !== null) return this.failure;
    const hangMs = this.watch.hangMs(this.snapshot());
    return hangMs === null ? null : `One step takes ${Math.round(hangMs / 1000)} s already`;
  }

  async close(): Promise<void> {
    this.lastSnapshot ??= withoutRequests(this.addon.snapshot());
    await this.addon.close();
  }

  /** The last event where the engine is closing, and takes no more requests. */
  private submit(request: Parameters<Engine['submit']>[0]): RequestEvent | null {
    try {
      this.addon.submit(request);
      return null;
    } catch (error) {
      if (engineCode(error) !== 'closing') throw error;
      return { type: 'failed', code: 'closing', message: 'The engine is closing' };
    }
  }

  /** An engine that is closing ends every request by itself. */
  private cancel(id: number): void {
    try {
      this.addon.cancel(id);
    } catch (error) {
      if (engineCode(error) !== 'closing') throw error;
    }
  }

  private time(event: RequestEvent, live: Live, nowMs: number): void {
    if (this.timings === null) return;
    if (event.type === 'started') live.startedMs ??= nowMs;
    // The one that ends an answer comes with the end.
    if (event.type === 'token' || (event.type === 'finished' && event.stopToken !== null)) {
      if (live.tokenMs !== null) this.timings.betweenTokens((nowMs - live.tokenMs) / 1000);
      live.firstTokenMs ??= nowMs;
      live.tokenMs = nowMs;
      live.generatedTokens += 1;
    }
    if (event.type === 'failed') this.timings.sequenceFailed(event.code);
    if (event.type === 'finished')
      this.timings.sequenceEnded(event.reason === 'cancelled' ? 'abort' : event.reason, courseOf(live));
  }

  private fail(reason: string): void {
    if (this.failure !== null) return;
    this.failure = reason;
    for (const listener of this.failedListeners) listener(reason);
  }

  private deliver(events: EngineEvent[]): void {
    const nowMs = performance.now();
    for (const event of events) {
      if (event.type === 'freed') {
        for (const listener of this.freedListeners) listener(event.revision);
        continue;
      }
      if (event.type === 'failed' && event.code === 'engine_failed') this.fail(event.message);
      const live = this.requests.get(event.id);
      if (live === undefined) continue;
      const told: RequestEvent =
        event.type === 'moved' ? { ...event, step: live.stepOf(event.revision) } : event;
      this.time(told, live, nowMs);
      live.queue.push(told);
      if (isLast(told)) this.requests.delete(event.id);
    }
    if (!events.some(endsLease)) return;
    for (const listener of this.endedListeners) listener();
  }
}

function newLive(stepOf: StepOf, promptTokens: number): Live {
  const before = { startedMs: null, firstTokenMs: null, tokenMs: null, generatedTokens: 0 };
  return { queue: new EventQueue(), stepOf, promptTokens, submittedMs: performance.now(), ...before };
}

function courseOf(live: Live): SequenceCourse | null {
  const { promptTokens, generatedTokens, submittedMs, startedMs, firstTokenMs, tokenMs } = live;
  if (startedMs === null || firstTokenMs === null || tokenMs === null) return null;
  return {
    promptTokens,
    generatedTokens,
    queueSeconds: (startedMs - submittedMs) / 1000,
    prefillSeconds: (firstTokenMs - startedMs) / 1000,
    decodeSeconds: (tokenMs - firstTokenMs) / 1000,
  };
}

function refuse(error: unknown): never {
  throw engineRefusal(error, []);
}

function secondsSince(startedMs: number): number {
  return (performance.now() - startedMs) / 1000;
}

function endsLease(event: EngineEvent): boolean {
  return event.type === 'moved' || event.type === 'finished' || event.type === 'failed';
}

function isLast(event: RequestEvent): boolean {
  return event.type === 'finished' || event.type === 'failed';
}

/** Whoever waits for a slot then waits for no lease, and hears that the engine closes. */
function withoutRequests(snapshot: ReturnType<Engine['snapshot']>): ReturnType<Engine['snapshot']> {
  const slots = snapshot.slots.map((slot) => ({ ...slot, leases: 0 }));
  return { ...snapshot, running: 0, waiting: 0, runningAdapters: [], waitingAdapters: [], slots };
}
