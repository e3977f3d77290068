import type { ServerResponse } from 'node:http';
import type { Registry } from '../adapters/registry.ts';
import { LorikeetError } from '../contract/errors.ts';

const HEARTBEAT_MS = 10_000;
/** Changes within this time become one event. */
const COALESCE_MS = 20;
const WATCHERS_MAX = 64;

/**
 * Sends the pod's state now and after each change as server-sent events, until the client goes. A client that reads
 * slowly gets fewer and later states, never a queue of old ones.
 */
export function watchState(registry: Registry, response: ServerResponse): void {
  let timer: NodeJS.Timeout | null = null;
  let isFull = false;
  let isDirty = true;
  const send = () => {
    timer = null;
    if (isFull || !isDirty) return;
    isDirty = false;
    isFull = !response.write(`data: ${JSON.stringify(registry.state())}\n\n`);
  };
  const schedule = () => {
    timer ??= setTimeout(send, COALESCE_MS);
  };
  const unsubscribe = registry.subscribe(() => {
    isDirty = true;
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

/** The open watches of a server: bounded in number, and ended when it closes, as they never end by themselves. */
export class OpenWatches {
  readonly #registry: Registry;
  readonly #open = new Set<ServerResponse>();

  constructor(registry: Registry) {
    this.#registry = registry;
  }

  requireRoom(): void {
    if (this.#open.size < WATCHERS_MAX) return;
    throw new LorikeetError('too_many_requests', `Expected at most ${WATCHERS_MAX} watches at once`, {
      field: 'watch',
      expected: WATCHERS_MAX,
      actual: this.#open.size + 1,
    });
  }

  open(response: ServerResponse): void {
    this.#open.add(response);
    response.once('close', () => this.#open.delete(response));
    watchState(this.#registry, response);
  }

  endAll(): void {
    for (const response of this.#open) response.end();
  }
}
