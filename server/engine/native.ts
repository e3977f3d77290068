import { createEngine } from '../../native/index.ts';
import type { Engine, EngineEvent, EngineOptions } from '../../native/types.ts';
import { EventQueue } from './event-queue.ts';
import { failureCode } from './native-errors.ts';
import type { AdapterEngine, GenerateRequest, RequestEvent } from './port.ts';

/**
 * The only way to the native addon. It gives requests their ids and brings each event to the request that waits for
 * it. A request's queue holds at most its prompt's log-probabilities and `maxTokens` tokens; how many requests there
 * are at once is bounded by the engine, which refuses one more with `queue_full`.
 */
export class NativeEngine implements Pick<AdapterEngine, 'generate' | 'failed'> {
  readonly engine: Engine;
  private readonly queues = new Map<number, EventQueue<RequestEvent>>();
  private readonly freedListeners: ((digest: string) => void)[] = [];
  private readonly failedListeners: ((reason: string) => void)[] = [];
  private nextId = 1;
  private failure: string | null = null;

  static open(options: EngineOptions): NativeEngine {
    return new NativeEngine((onEvents) => createEngine(options, onEvents));
  }

  constructor(start: (onEvents: (events: EngineEvent[]) => void) => Engine) {
    this.engine = start((events) => this.deliver(events));
  }

  async *generate(request: GenerateRequest, signal: AbortSignal): AsyncGenerator<RequestEvent> {
    signal.throwIfAborted();
    const id = this.nextId++;
    const queue = new EventQueue<RequestEvent>();
    const cancel = () => this.engine.cancel(id);
    this.engine.submit({ ...request, id });
    this.queues.set(id, queue);
    signal.addEventListener('abort', cancel, { once: true });
    let ended = false;
    try {
      while (!ended) {
        const event = await queue.next();
        ended = isLast(event);
        yield event;
      }
    } finally {
      signal.removeEventListener('abort', cancel);
      this.queues.delete(id);
      if (!ended) cancel();
    }
  }

  onFreed(listener: (digest: string) => void): void {
    this.freedListeners.push(listener);
  }

  /** Requests that have not ended. */
  get live(): number {
    return this.queues.size;
  }

  /** Calls the listener with the reason once the engine can serve nobody any more. */
  onFailed(listener: (reason: string) => void): void {
    this.failedListeners.push(listener);
  }

  get failed(): string | null {
    return this.failure;
  }

  async close(): Promise<void> {
    await this.engine.close();
  }

  private fail(reason: string): void {
    if (this.failure !== null) return;
    this.failure = reason;
    for (const listener of this.failedListeners) listener(reason);
  }

  private deliver(events: EngineEvent[]): void {
    for (const event of events) {
      if (event.type === 'freed') {
        for (const listener of this.freedListeners) listener(event.revision);
        continue;
      }
      if (event.type === 'failed' && event.code === 'engine_failed') this.fail(event.message);
      const told = event.type === 'failed' ? { ...event, code: failureCode(event.code) } : event;
      this.queues.get(event.id)?.push(told);
      if (isLast(told)) this.queues.delete(event.id);
    }
  }
}

function isLast(event: RequestEvent): boolean {
  return event.type === 'finished' || event.type === 'failed';
}
