import { addAbortSignal, type Readable } from 'node:stream';
import { type Clock, deadline, pause } from '../kube/clock.ts';
import type { Span } from './port.ts';
import { Retryable, SourceError } from './types.ts';

export interface RangeLimits {
  rangeBytes: number;
  /** Ranges in flight: memory is `rangeBytes * concurrency`. */
  concurrency: number;
  /** Without `paceBytes`, or the rest of the range, for this long it is given up. */
  stallMs: number;
  paceBytes: number;
  /** How often one range is taken up again where it broke off. */
  resumes: number;
  /** Before the first resume; doubles. */
  resumeDelayMs: number;
}

export interface RangeReading {
  /** A part of one fixed version; rejects with a SourceError. */
  open(span: Span, signal: AbortSignal): Promise<Readable>;
  limits: RangeLimits;
  clock: Clock;
}

/** The bytes of `span` in order, fetched as several ranges side by side. Ends all of them when it is left early. */
export async function* readRanges(
  reading: RangeReading,
  span: Span,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const { concurrency, rangeBytes } = reading.limits;
  const left = new AbortController();
  const life = AbortSignal.any([signal, left.signal]);
  const inFlight: Promise<Uint8Array>[] = [];
  let next = span.begin;
  const fill = () => {
    while (inFlight.length < concurrency && next < span.end) {
      const end = Math.min(next + rangeBytes, span.end);
      const range = readRange(reading, { begin: next, end }, life);
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

/** The same of a store that knows no ranges: `span` is all there is, and what breaks off is not taken up again. */
export async function* readWhole(
  reading: RangeReading,
  { begin, end }: Span,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  let left = end - begin;
  for await (const chunk of withoutStall(reading, { begin, end }, signal)) {
    left -= chunk.length;
    if (left < 0) throw broken('sent more than was asked for');
    yield chunk;
  }
  if (left > 0) throw broken('ended a transfer early');
}

async function readRange(
  reading: RangeReading,
  { begin, end }: Span,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const { limits, clock } = reading;
  const buffer = Buffer.allocUnsafe(end - begin);
  let filled = 0;
  for (let resumes = 0; ; resumes += 1) {
    try {
      for await (const chunk of withoutStall(reading, { begin: begin + filled, end }, signal)) {
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
      await pause(clock, limits.resumeDelayMs * 2 ** resumes, signal);
      signal.throwIfAborted();
    }
  }
}

async function* withoutStall(
  { open, limits: { stallMs, paceBytes }, clock }: RangeReading,
  span: Span,
  parent: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const life = deadline(clock, stallMs, parent, () => broken(`sent too little in ${stallMs} ms`));
  const { signal } = life;
  let body: Readable | null = null;
  let paced = 0;
  try {
    body = addAbortSignal(signal, await open(span, signal));
    for await (const chunk of body as AsyncIterable<Buffer>) {
      paced += chunk.length;
      if (paced >= paceBytes) {
        paced = 0;
        life.extend();
      }
      yield chunk;
    }
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    throw error instanceof SourceError ? error : broken('broke a transfer off', error);
  } finally {
    life.clear();
    body?.destroy();
  }
}

function broken(what: string, cause?: unknown): Retryable {
  return new Retryable('SourceUnreachable', `The source ${what}.`, cause);
}
