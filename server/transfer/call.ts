import type { Readable } from 'node:stream';
import { type Dispatcher, request } from 'undici';
import { ErrorReply } from '../contract/adapter-api.ts';
import { ERRORS, type ErrorCode, type ErrorDetail, LorikeetError } from '../contract/errors.ts';
import { writeTrace } from '../contract/trace.ts';
import { PodUnreachable, rootMessage } from './unreachable.ts';

const REPLY_BYTES_MAX = 16 * 1024 * 1024;

export interface PodCall {
  method: 'GET' | 'PUT' | 'POST' | 'DELETE';
  url: string;
  headers: Record<string, string>;
  body?: string | Readable | undefined;
  dispatcher: Dispatcher;
  signal: AbortSignal;
  /** Between two reads of the reply, and from the last byte of the request to its first where nothing else is said. */
  silenceMs: number;
  firstByteMs?: number;
}

/** One HTTP exchange. Throws LorikeetError for a refusal in the catalogue's words, PodUnreachable for anything else. */
export async function exchange(call: PodCall): Promise<Dispatcher.ResponseData> {
  const { url, method, headers, body, dispatcher, signal, silenceMs, firstByteMs = silenceMs } = call;
  let response: Dispatcher.ResponseData;
  try {
    response = await request(url, {
      method,
      headers: { ...writeTrace(), ...headers },
      dispatcher,
      signal,
      headersTimeout: firstByteMs,
      bodyTimeout: silenceMs,
      ...(body === undefined ? {} : { body }),
    });
  } catch (error) {
    throw unreachable(signal, error);
  }
  if (response.statusCode < 300) return response;
  throw refusal(response.statusCode, await readText(response.body, signal));
}

export async function readText(body: AsyncIterable<Uint8Array>, signal: AbortSignal): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  try {
    for await (const chunk of body) {
      bytes += chunk.length;
      if (bytes > REPLY_BYTES_MAX)
        throw new PodUnreachable(`the reply is longer than ${REPLY_BYTES_MAX} bytes`);
      chunks.push(chunk);
    }
  } catch (error) {
    throw error instanceof PodUnreachable ? error : unreachable(signal, error);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function unreachable(signal: AbortSignal, error: unknown): PodUnreachable {
  const cause = signal.aborted ? signal.reason : error;
  return cause instanceof PodUnreachable ? cause : new PodUnreachable(rootMessage(cause), cause);
}

function refusal(status: number, text: string): LorikeetError | PodUnreachable {
  const parsed = ErrorReply.safeParse(jsonOrNull(text));
  const code = parsed.success ? parsed.data.error.code : '';
  if (!parsed.success || !isErrorCode(code)) {
    return new PodUnreachable(`answered HTTP ${status} with a body that is not of the admin API`);
  }
  const { message, field, expected, actual } = parsed.data.error;
  const detail: ErrorDetail = { expected, actual };
  if (field !== undefined) detail.field = field;
  return new LorikeetError(code, message, detail);
}

function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(ERRORS, code);
}

export function jsonOrNull(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
