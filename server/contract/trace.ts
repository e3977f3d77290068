/**
 * W3C trace context and x-request-id: which push or request a log line belongs to. No spans are recorded and nothing is exported:
 * a caller's ids are taken on, made where there are none, written into logs, and sent with every call that follows from them.
 */

import { AsyncLocalStorage } from 'node:async_hooks';
import { randomUUID } from 'node:crypto';

export interface Trace {
  /** 32 hexadecimal digits, the same in every process. */
  traceId: string;
  /** 16 hexadecimal digits: what is done here. */
  spanId: string;
  /** Of the caller: whether somebody before us records. */
  isSampled: boolean;
  /** As it came, for those behind us. */
  state: string | null;
  /** What the caller calls it; else the trace id. */
  requestId: string;
}

type Fields = Readonly<Record<string, string | string[] | undefined>>;

const STATE_LENGTH_MAX = 512;
const REQUEST_ID = /^[\w.:/+=@-]{1,128}$/;
const NONE = /^0+$/;

// The one state of a file in server/: what runs in whose name is Node's to know, and every log line and call asks for it.
const store = new AsyncLocalStorage<Trace>();

export function currentTrace(): Trace | null {
  return store.getStore() ?? null;
}

/** `work`, and what it leads to, is done in the name of this trace. */
export function inTrace<T>(trace: Trace, work: () => T): T {
  return store.run(trace, work);
}

/** For what an emitter calls later: it is done in the name of who hands it over now. */
export function keepingTrace<A extends unknown[], R>(work: (...args: A) => R): (...args: A) => R {
  return AsyncLocalStorage.bind(work);
}

/** What cannot be read is as if it was not there: no request is refused for it. */
export function readTrace(headers: Fields): Trace {
  const requestId = textOf(headers, 'x-request-id', REQUEST_ID);
  const parent = parseParent(textOf(headers, 'traceparent', /^/) ?? '');
  const traceId = parent?.traceId ?? asTraceId(requestId) ?? randomId();
  const state = parent && textOf(headers, 'tracestate', /^[\x20-\x7e]+$/);
  return {
    traceId,
    spanId: randomId().slice(0, 16),
    isSampled: parent?.isSampled ?? false,
    state: state && state.length <= STATE_LENGTH_MAX ? state : null,
    requestId: requestId ?? traceId,
  };
}

/** Headers of a call that follows from the current trace; none where there is none. */
export function writeTrace(): Record<string, string> {
  const trace = currentTrace();
  if (trace === null) return {};
  const { state, requestId, traceId } = trace;
  return {
    traceparent: parentText(trace),
    ...(state === null ? {} : { tracestate: state }),
    ...(requestId === traceId ? {} : { 'x-request-id': requestId }),
  };
}

/** Headers of an answer. */
export function answerTrace(trace: Trace): Record<string, string> {
  return { 'x-request-id': trace.requestId, traceparent: parentText(trace) };
}

/** Fields of each log line. */
export function traceFields(): Record<string, string> {
  const trace = currentTrace();
  if (trace === null) return {};
  const { traceId, spanId, requestId } = trace;
  return { trace_id: traceId, span_id: spanId, ...(requestId === traceId ? {} : { request_id: requestId }) };
}

/** 32 hexadecimal digits; Node makes many UUIDs at once. */
function randomId(): string {
  return randomUUID().replaceAll('-', '');
}

function parentText({ traceId, spanId, isSampled }: Trace): string {
  return `00-${traceId}-${spanId}-${isSampled ? '01' : '00'}`;
}

/** A version after 00 may have more behind what we know. */
function parseParent(text: string): { traceId: string; isSampled: boolean } | null {
  const [, version, traceId = '', spanId = '', flags = '', more] =
    /^([\da-f]{2})-([\da-f]{32})-([\da-f]{16})-([\da-f]{2})(-.*)?$/.exec(text) ?? [];
  if (version === undefined || version === 'ff' || (version === '00' && more !== undefined)) return null;
  if (NONE.test(traceId) || NONE.test(spanId)) return null;
  return { traceId, isSampled: (Number.parseInt(flags, 16) & 1) === 1 };
}

/** Of a UUID, and of what is a trace id already. */
function asTraceId(requestId: string | null): string | null {
  const digits = requestId?.replaceAll('-', '').toLowerCase() ?? '';
  return /^[\da-f]{32}$/.test(digits) && !NONE.test(digits) ? digits : null;
}

function textOf(headers: Fields, name: string, pattern: RegExp): string | null {
  const value = headers[name];
  return typeof value === 'string' && pattern.test(value) ? value : null;
}
