import type { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import type { Span } from './port.ts';
import { Retryable, SourceError } from './types.ts';

/** Opens a part of one fixed version; rejects with a SourceError. */
export type OpenRange = (span: Span, signal: AbortSignal) => Promise<Readable>;

export interface RangeLimits {
  rangeBytes: number;
  /** Ranges in flight: memory is `rangeBytes * concurrency`. */
  concurrency: number;
  /** Without a byte for this long a range is given up. */
  stallMs: number;
  /** How often one range is taken up again where it broke off. */
  resumes: number;
  /** Before the first resume; doubles. */
  resumeDelayMs: number;
}

/** The bytes of `span` in order, fetched as several ranges side by side. Ends all of them when it is left early. */
export async function* readRanges(
  open: OpenRange,
  span: Span,
  limits: RangeLimits,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const left = new AbortController();
  const life = AbortSignal.any([signal, left.signal]);
  const inFlight: Promise<Uint8Array>[] = [];
  let next = span.begin;
  const fill = () => {
    while (inFlight.length < limits.concurrency && next < span.end) {
      const end = Math.min(next + limits.rangeBytes, span.end);
      const range = readRange(open, { begin: next, end }, limits, life);
      // Reported when its turn comes; until then nobody waits for it.
      range.catch(() => undefined);
      inFlight.push(range);
      next = end;
    }
  };
  try {
    for (fill(); inFlight.length > 0; fill()) {
      yield await (inFlight[0] as Promise<Uint8Array>);
      inFlight.shift();
    }
  } finally {
    left.abort();
  }
}

async function readRange(
  open: OpenRange,
  { begin, end }: Span,
  limits: RangeLimits,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const buffer = Buffer.allocUnsafe(end - begin);
  let filled = 0;
  for (let resumes = 0; ; resumes += 1) {
    try {
      for await (const chunk of withoutStall(open, { begin: begin + filled, end }, limits.stallMs, signal)) {
        if (filled + chunk.length > buffer.length) throw broken('sent more than was asked for');
        buffer.set(chunk, filled);
        filled += chunk.length;
      }
      if (filled === buffer.length) return buffer;
      throw broken('ended a transfer early');
    } catch (error) {
      signal.throwIfAborted();
      const isTransient = error instanceof Retryable && error.reason === 'SourceUnreachable';
      if (!isTransient || resumes === limits.resumes) throw error;
      await delay(limits.resumeDelayMs * 2 ** resumes, undefined, { signal });
    }
  }
}

async function* withoutStall(
  open: OpenRange,
  span: Span,
  stallMs: number,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const watchdog = new AbortController();
  const life = AbortSignal.any([signal, watchdog.signal]);
  const timer = setTimeout(() => watchdog.abort(broken(`sent nothing for ${stallMs} ms`)), stallMs);
  let body: Readable | null = null;
  const cut = () => body?.destroy(life.reason);
  life.addEventListener('abort', cut, { once: true });
  try {
    body = await open(span, life);
    // An abort that came while the response was on its way found no body to cut.
    if (life.aborted) cut();
    for await (const chunk of body) {
      timer.refresh();
      yield chunk as Buffer;
    }
  } catch (error) {
    if (life.aborted) throw life.reason;
    throw error instanceof SourceError ? error : broken('broke a transfer off', error);
  } finally {
    clearTimeout(timer);
    life.removeEventListener('abort', cut);
    body?.destroy();
  }
}

function broken(what: string, cause?: unknown): Retryable {
  return new Retryable('SourceUnreachable', `The object store ${what}.`, cause);
}
