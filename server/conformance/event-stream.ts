import type { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { PodChanges, PodState } from '../contract/adapter-api.ts';
import { answerOf, type Client } from './client.ts';
import { requireStatus, requireThat, told, Unmet } from './expectations.ts';

export interface StreamEvent {
  /** `message` where the server names none. */
  event: string;
  id: string | null;
  data: string;
}

const UNREAD_BYTES_MAX = 64 << 20;

/** Server-sent events as they come. */
export class EventStream {
  readonly contentType: string;
  readonly #body: Readable;
  readonly #events: StreamEvent[] = [];
  #unread = '';
  #wake: () => void = () => {};
  /** All of it has come. */
  hasEnded = false;
  /** Lines that say nothing but that the server is alive. */
  comments = 0;

  private constructor(contentType: string, body: Readable) {
    this.contentType = contentType;
    this.#body = body;
    const end = () => {
      this.hasEnded = true;
      this.#wake();
    };
    body.setEncoding('utf8');
    body.on('data', (text: string) => this.#take(text));
    body.once('end', end).once('close', end).on('error', end);
  }

  static async open(
    client: Client,
    path: string,
    sent: { method?: string; headers?: Record<string, string>; body?: object } = {},
  ): Promise<EventStream> {
    const { method = 'GET', ...rest } = sent;
    const { statusCode, headers, body } = await client.open(method, path, rest);
    if (statusCode !== 200) {
      const bytes = Buffer.from(await body.bytes());
      requireStatus(answerOf(`${method} ${path}`, statusCode, { headers, bytes }), 200);
    }
    return new EventStream(String(headers['content-type'] ?? ''), body);
  }

  /** Null where none comes in that time. */
  async nextWithin(waitMs: number): Promise<StreamEvent | null> {
    const late = AbortSignal.timeout(Math.ceil(waitMs));
    while (this.#events.length === 0 && !this.hasEnded && !late.aborted) {
      const woken = new Promise<void>((done) => {
        this.#wake = done;
      });
      await Promise.race([woken, delay(waitMs, undefined, { signal: late }).catch(() => {})]);
    }
    return this.#events.shift() ?? null;
  }

  /** Throws where none comes in that time. */
  async next(what: string, waitMs: number): Promise<StreamEvent> {
    const event = await this.nextWithin(waitMs);
    if (event !== null) return event;
    throw new Unmet(`${what} within ${waitMs} ms`, this.hasEnded ? 'the end of the stream' : 'no event');
  }

  close(): void {
    this.#body.destroy();
  }

  #take(text: string): void {
    this.#unread += text.replaceAll('\r', '');
    for (;;) {
      const end = this.#unread.indexOf('\n\n');
      if (end < 0) break;
      this.#read(this.#unread.slice(0, end));
      this.#unread = this.#unread.slice(end + 2);
    }
    if (this.#unread.length > UNREAD_BYTES_MAX) this.#body.destroy();
    this.#wake();
  }

  #read(block: string): void {
    const lines = block.split('\n');
    this.comments += lines.filter((line) => line.startsWith(':')).length;
    const valuesOf = (field: string) =>
      lines
        .filter((line) => line.startsWith(`${field}:`))
        .map((line) => line.slice(field.length + 1).trimStart());
    const data = valuesOf('data');
    if (data.length === 0) return;
    const [event = 'message'] = valuesOf('event');
    this.#events.push({ event, id: valuesOf('id')[0] ?? null, data: data.join('\n') });
  }
}

export function readState(event: StreamEvent): PodState {
  return readEvent(event, 'message', PodState);
}

export function readChanges(event: StreamEvent): PodChanges {
  return readEvent(event, 'changes', PodChanges);
}

/** What a watcher knows after the event. */
export function follow(before: PodState | null, event: StreamEvent): PodState {
  if (event.event !== 'changes') return readState(event);
  const { adapters, removed, ...totals } = readChanges(event);
  requireThat(before !== null, 'a whole state before the first changes', event.data);
  const gone = new Set([...removed, ...adapters.map(({ name }) => name)]);
  const left = before.adapters.filter(({ name }) => !gone.has(name));
  return { ...before, ...totals, adapters: [...left, ...adapters] };
}

function readEvent<T>(
  { event, data }: StreamEvent,
  name: string,
  schema: { safeParse(value: unknown): { data?: T } },
): T {
  requireThat(event === name, `an event ${name}`, event);
  let value: unknown;
  try {
    value = JSON.parse(data);
  } catch {
    throw new Unmet('JSON as data of an event', told(data));
  }
  const parsed = schema.safeParse(value).data;
  requireThat(parsed !== undefined, `data of an event ${name} as the contract has it`, data);
  return parsed;
}
