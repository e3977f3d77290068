import { randomBytes } from 'node:crypto';
import { type Clock, systemClock } from './clock.ts';
import type { Log } from './log.ts';
import { apiVersionOf, EVENTS, type KubeObject, pathOf } from './resource.ts';
import type { Rest } from './rest.ts';

export interface EventRecorderOptions {
  rest: Rest;
  /** Who speaks, for example lorikeet-operator, and which of them. */
  component: string;
  instance: string;
  log: Log;
  onDrop: (cause: DropCause) => void;
  clock?: Clock;
}

/** Too many wait, too many are about one object, or the API server did not take it. */
export type DropCause = 'full' | 'limited' | 'failed';

export type EventType = 'Normal' | 'Warning';

interface Sent {
  namespace: string;
  name: string;
  count: number;
  atMs: number;
}

interface Bucket {
  tokens: number;
  filledAtMs: number;
}

interface Pending {
  object: KubeObject;
  type: EventType;
  reason: string;
  message: string;
  at: Date;
}

const WAITING_MAX = 256;
const REMEMBERED_MAX = 2_048;
const MESSAGE_LENGTH_MAX = 1_024;
const SAME_EVENT_MS = 600_000;
/** Per object: a burst of ten, then one a minute. */
const BURST = 10;
const REFILL_MS = 60_000;

/**
 * Events as `kubectl describe` shows them. They are hints for people: sent one at a time in the background, the same
 * again within ten minutes only counts the first up, too many are dropped, and a failure is logged and forgotten.
 */
export class EventRecorder {
  readonly #options: EventRecorderOptions;
  readonly #clock: Clock;
  readonly #waiting: Pending[] = [];
  readonly #sent = new Map<string, Sent>();
  readonly #buckets = new Map<string, Bucket>();
  #sending: Promise<void> | null = null;

  constructor(options: EventRecorderOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
  }

  event(object: KubeObject, type: EventType, reason: string, message: string): void {
    const isFull = this.#waiting.length >= WAITING_MAX;
    if (isFull || !this.#admits(object)) {
      this.#options.onDrop(isFull ? 'full' : 'limited');
      return;
    }
    this.#waiting.push({
      object,
      type,
      reason,
      message: message.slice(0, MESSAGE_LENGTH_MAX),
      at: this.#clock.date(),
    });
    this.#sending ??= this.#sendAll().finally(() => {
      this.#sending = null;
    });
  }

  /** Resolves when all that waits has been sent or given up. */
  async flush(): Promise<void> {
    await this.#sending;
  }

  #admits({ metadata }: KubeObject): boolean {
    const nowMs = this.#clock.monotonicMs();
    const uid = metadata.uid ?? metadata.name;
    const { tokens, filledAtMs } = this.#buckets.get(uid) ?? { tokens: BURST, filledAtMs: nowMs };
    const filled = Math.min(BURST, tokens + (nowMs - filledAtMs) / REFILL_MS);
    remember(this.#buckets, uid, { tokens: filled < 1 ? filled : filled - 1, filledAtMs: nowMs });
    return filled >= 1;
  }

  async #sendAll(): Promise<void> {
    for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) {
      try {
        await this.#send(next);
      } catch (error) {
        this.#options.onDrop('failed');
        this.#options.log.warn({ err: error, reason: next.reason }, 'an event could not be written');
      }
    }
  }

  async #send(event: Pending): Promise<void> {
    const { metadata } = event.object;
    const identity = JSON.stringify([metadata.uid, event.type, event.reason, event.message]);
    const earlier = this.#sent.get(identity);
    const nowMs = this.#clock.monotonicMs();
    if (earlier !== undefined && nowMs - earlier.atMs < SAME_EVENT_MS) {
      remember(this.#sent, identity, { ...earlier, count: earlier.count + 1, atMs: nowMs });
      await this.#options.rest.request({
        method: 'PATCH',
        path: pathOf(EVENTS, earlier),
        body: { count: earlier.count + 1, lastTimestamp: event.at.toISOString() },
      });
      return;
    }
    const namespace = metadata.namespace ?? 'default';
    const name = `${metadata.name.slice(0, 200)}.${randomBytes(8).toString('hex')}`;
    await this.#options.rest.request({
      method: 'POST',
      path: pathOf(EVENTS, { namespace }),
      body: this.#body(event, { namespace, name }),
    });
    remember(this.#sent, identity, { namespace, name, count: 1, atMs: nowMs });
  }

  #body(
    { object, type, reason, message, at }: Pending,
    metadata: { namespace: string; name: string },
  ): object {
    const { component, instance } = this.#options;
    const { name, namespace, uid, resourceVersion } = object.metadata;
    return {
      apiVersion: apiVersionOf(EVENTS),
      kind: EVENTS.kind,
      metadata,
      involvedObject: {
        apiVersion: object.apiVersion,
        kind: object.kind,
        name,
        namespace,
        uid,
        resourceVersion,
      },
      type,
      reason,
      message,
      count: 1,
      firstTimestamp: at.toISOString(),
      lastTimestamp: at.toISOString(),
      source: { component },
      reportingComponent: component,
      reportingInstance: instance,
    };
  }
}

/** Keeps the newest entries only. */
function remember<V>(map: Map<string, V>, key: string, value: V): void {
  map.delete(key);
  map.set(key, value);
  const oldest = map.keys().next();
  if (map.size > REMEMBERED_MAX && !oldest.done) map.delete(oldest.value);
}
