import type { IncomingMessage, ServerResponse } from 'node:http';
import type { z } from 'zod';
import { LorikeetError, notStrictJson } from '../contract/errors.ts';
import { readContentLength, requireContentType } from '../contract/headers.ts';
import { parseStrictJson } from '../contract/strict-json.ts';
import { bodyDeadlineMs, requireBodySize } from './limits.ts';

const JSON_BYTES_MAX = 1 << 16;

/** A request whose body may still be read, and the response to invite it with. */
export interface IncomingBody {
  request: IncomingMessage;
  response: ServerResponse;
}

/**
 * Feeds the body to `take` as it arrives. Where `take` throws, the promise rejects with that at once; what is still
 * to come is left for the connection to drain, so that the client can read the refusal.
 */
export function pump(
  { request: body, response }: IncomingBody,
  take: (chunk: Buffer) => void,
  deadlineMs: number,
): Promise<void> {
  if (body.headers.expect !== undefined) response.writeContinue();
  const done = Promise.withResolvers<void>();
  const onData = (chunk: Buffer) => {
    try {
      take(chunk);
    } catch (error) {
      done.reject(error);
    }
  };
  const onClose = () =>
    done.reject(new LorikeetError('malformed_request', 'The body ended before its last byte'));
  const timer = setTimeout(() => {
    const message = `Expected the whole body within ${Math.round(deadlineMs / 1000)} s`;
    done.reject(new LorikeetError('request_timeout', message, { field: 'body' }));
  }, deadlineMs);
  body.on('data', onData).once('end', done.resolve).once('close', onClose).once('error', onClose);
  return done.promise.finally(() => {
    clearTimeout(timer);
    body.off('data', onData).off('end', done.resolve).off('close', onClose);
  });
}

/** A small body of JSON, as `schema` has it; anything else is refused by its first fault. */
export async function readJsonAs<T extends z.ZodType>(
  schema: T,
  incoming: IncomingBody,
): Promise<z.output<T>> {
  const { headers, headersDistinct } = incoming.request;
  requireContentType(headersDistinct, ['application/json']);
  readContentLength(headers);
  const parsed = schema.safeParse(await readJson(incoming));
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  const field = issue?.path.join('.') || 'body';
  const message = `${field}: ${issue?.message ?? 'invalid'}`.slice(0, 300);
  throw new LorikeetError('malformed_request', message, { field });
}

async function readJson(incoming: IncomingBody): Promise<unknown> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  const take = (chunk: Buffer) => {
    bytes += chunk.length;
    requireBodySize(bytes, JSON_BYTES_MAX);
    chunks.push(chunk);
  };
  await pump(incoming, take, bodyDeadlineMs(JSON_BYTES_MAX));
  try {
    return parseStrictJson(Buffer.concat(chunks), { depth: 8 });
  } catch (error) {
    throw notStrictJson('malformed_request', 'body', error);
  }
}
