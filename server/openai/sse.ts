import type { Readable } from 'node:stream';
import { toOpenAiError } from './errors.ts';
import { patiently } from './unread.ts';

export const SSE_HEADERS = {
  'content-type': 'text/event-stream; charset=utf-8',
  'cache-control': 'no-cache',
  'x-accel-buffering': 'no',
} as const;

/**
 * Server-sent events, one `data:` line per object, `[DONE]` last. An error in mid-stream cannot change the status any
 * more: it is sent as an event of its own, as vLLM does.
 */
export function eventStream(objects: AsyncIterable<object>, cutOff: () => void): Readable {
  return patiently(lines(objects), cutOff);
}

async function* lines(objects: AsyncIterable<object>): AsyncGenerator<string> {
  try {
    for await (const object of objects) yield `data: ${JSON.stringify(object)}\n\n`;
  } catch (error) {
    yield `data: ${JSON.stringify(toOpenAiError(error))}\n\n`;
  }
  yield 'data: [DONE]\n\n';
}
