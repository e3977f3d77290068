import { Readable } from 'node:stream';
import { toApiError } from './errors.ts';

export const SSE_HEADERS = {
  'content-type': 'text/event-stream; charset=utf-8',
  'cache-control': 'no-cache',
  'x-accel-buffering': 'no',
} as const;

/** A client that takes no byte for so long is cut off. */
const STALL_MS_MAX = 60_000;

/**
 * Server-sent events, one `data:` line per object, `[DONE]` last. An error in mid-stream cannot change the status any
 * more: it is sent as an event of its own, as vLLM does.
 */
export function eventStream(objects: AsyncIterable<object>, cutOff: () => void): Readable {
  return Readable.from(lines(objects, cutOff), { objectMode: false });
}

async function* lines(objects: AsyncIterable<object>, cutOff: () => void): AsyncGenerator<string> {
  try {
    for await (const object of objects) {
      const timer = setTimeout(cutOff, STALL_MS_MAX);
      try {
        yield `data: ${JSON.stringify(object)}\n\n`;
      } finally {
        clearTimeout(timer);
      }
    }
  } catch (error) {
    yield `data: ${JSON.stringify(toApiError(error))}\n\n`;
  }
  yield 'data: [DONE]\n\n';
}
