import type { Dispatcher } from 'undici';
import type { ApiCall } from './api-proxy.ts';

/** Where an operator ends: before its k-th write arrives, or after it has been carried out and before the answer comes. */
export interface CrashPoint {
  write: number;
  when: 'before' | 'after';
}

/** Renewed every second by a timer, so that they have no place in a scenario; reviews and reads change nothing. */
const NO_WRITES = ['leases', 'tokenreviews', 'subjectaccessreviews'];

/** Digests are long, and the names of points say them again and again. */
const NOISE = /^\/lora\/v1\/|sha256:.*$/g;

export function isWrite({ method, kind }: Pick<ApiCall, 'method' | 'kind'>): boolean {
  return method !== 'GET' && !NO_WRITES.includes(kind);
}

/** Counts what operators of one site write, to the API server and to pods alike, and ends one of them at a point. */
export class WriteLog {
  readonly lines: string[] = [];
  lastAtMs = performance.now();
  readonly #point: CrashPoint | null;
  readonly #crash: () => void;

  constructor(point: CrashPoint | null, crash: () => void) {
    this.#point = point;
    this.#crash = crash;
  }

  /** True where the operator has ended by it: the write must not go out. */
  begin(line: string): { number: number; isLost: boolean } {
    this.lines.push(line);
    this.lastAtMs = performance.now();
    const number = this.lines.length;
    const isLost = this.#isAt(number, 'before');
    if (isLost) this.#crash();
    return { number, isLost };
  }

  /** True where the operator has ended by it: it must not hear the answer. */
  carriedOut(number: number): boolean {
    const isLost = this.#isAt(number, 'after');
    if (isLost) this.#crash();
    return isLost;
  }

  get reached(): boolean {
    return this.#point === null || this.lines.length >= this.#point.write;
  }

  #isAt(number: number, when: CrashPoint['when']): boolean {
    return this.#point?.write === number && this.#point.when === when;
  }
}

/** A dispatcher to pods whose writes are counted, and which may be the last of its operator. */
export function countingWrites(agent: Dispatcher, writes: WriteLog): Dispatcher {
  return agent.compose((dispatch) => (options, handler) => {
    const { method, path } = options;
    if (method === 'GET' || path.endsWith('/watch')) return dispatch(options, handler);
    const { number } = writes.begin(`pod ${method} ${path.replaceAll(NOISE, '')}`);
    // Where that was the end, the agent is destroyed and fails the call.
    return dispatch(options, {
      onRequestStart: (controller, context) => handler.onRequestStart?.(controller, context),
      onResponseStart: (controller, status, headers, message) => {
        if (status >= 200 && writes.carriedOut(number))
          controller.abort(new Error('the operator has crashed'));
        else handler.onResponseStart?.(controller, status, headers, message);
      },
      onResponseData: (controller, chunk) => handler.onResponseData?.(controller, chunk),
      onResponseEnd: (controller, trailers) => handler.onResponseEnd?.(controller, trailers),
      onResponseError: (controller, error) => handler.onResponseError?.(controller, error),
    });
  });
}
