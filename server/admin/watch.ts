import type { ServerResponse } from 'node:http';
import type { PodReport } from '../adapters/pod-report.ts';
import type { Registry } from '../adapters/registry.ts';
import { type Reported, StateLog } from '../adapters/state-log.ts';
import { TICK_MS } from '../adapters/traffic.ts';
import { LorikeetError } from '../contract/errors.ts';
import type { WantedEvents } from '../contract/headers.ts';

const HEARTBEAT_MS = 10_000;
/** Changes within this time become one event. */
const COALESCE_MS = 20;
const WATCHERS_MAX = 64;

const WHOLE_STATES: WantedEvents = { takesChanges: false, lastId: null };

/**
 * Sends the pod's state now, and it or its changes after each change, as server-sent events, until the client goes. A
 * client that reads slowly gets fewer and later events, never a queue of old ones.
 */
export function watchState(
  { registry, log }: { registry: Registry; log: StateLog },
  response: ServerResponse,
  wanted = WHOLE_STATES,
): void {
  let timer: NodeJS.Timeout | null = null;
  let isFull = false;
  let isDirty = true;
  log.invalidate();
  const events = eventsOf(log, wanted);
  const send = () => {
    timer = null;
    if (isFull || !isDirty) return;
    isDirty = false;
    const event = events.next();
    if (event !== null) isFull = !response.write(event);
  };
  const schedule = () => {
    timer ??= setTimeout(send, COALESCE_MS);
  };
  const unsubscribe = registry.subscribe(() => {
    isDirty = true;
    log.invalidate();
    schedule();
  });
  const heartbeat = setInterval(() => {
    if (!isFull) isFull = !response.write(': alive\n\n');
  }, HEARTBEAT_MS);
  response.on('drain', () => {
    isFull = false;
    schedule();
  });
  response.once('close', () => {
    unsubscribe();
    clearInterval(heartbeat);
    if (timer !== null) clearTimeout(timer);
  });
  response.writeHead(200, {
    'content-type': 'text/event-stream',
    'cache-control': 'no-store',
    connection: 'close',
  });
  send();
}

/** Composes what brings a client from its last event to now; null where that is nothing. */
function eventsOf(log: StateLog, { takesChanges, lastId }: WantedEvents): { next(): string | null } {
  if (!takesChanges) return { next: () => `data: ${JSON.stringify(log.state)}\n\n` };
  let moment = lastId === null ? null : log.momentOf(lastId);
  let isFirst = true;
  const next = () => {
    const { id, sequence } = log;
    if (!isFirst && moment === sequence) return null;
    const changes = moment === null ? null : log.since(moment);
    isFirst = false;
    moment = sequence;
    return changes === null
      ? `id: ${id}\ndata: ${JSON.stringify(log.state)}\n\n`
      : `event: changes\nid: ${id}\ndata: ${JSON.stringify(changes)}\n\n`;
  };
  return { next };
}

/** The open watches of a server: bounded in number, and ended when it closes, as they never end by themselves. */
export class OpenWatches {
  readonly #registry: Registry;
  readonly #log: StateLog;
  readonly #open = new Set<ServerResponse>();
  readonly #ticking: NodeJS.Timeout;

  /** `relays`: whether the pod can hand bodies on to others. */
  constructor(registry: Registry, relays: () => boolean) {
    this.#registry = registry;
    this.#log = new StateLog({ report: withRelays(registry.report, relays) });
    this.#ticking = setInterval(() => registry.tick(), TICK_MS).unref();
  }

  requireRoom(): void {
    if (this.#open.size < WATCHERS_MAX) return;
    throw new LorikeetError('too_many_requests', `Expected at most ${WATCHERS_MAX} watches at once`, {
      field: 'watch',
      expected: WATCHERS_MAX,
      actual: this.#open.size + 1,
    });
  }

  open(response: ServerResponse, wanted: WantedEvents): void {
    this.#open.add(response);
    response.once('close', () => this.#open.delete(response));
    watchState({ registry: this.#registry, log: this.#log }, response, wanted);
  }

  endAll(): void {
    clearInterval(this.#ticking);
    for (const response of this.#open) response.end();
  }
}

function withRelays(report: PodReport, relays: () => boolean): Reported {
  return {
    look: () => ({ ...report.look(), relays: relays() }),
    names: () => report.names(),
    adapter: (name) => report.adapter(name),
    onTouched: (listener) => report.onTouched(listener),
  };
}
