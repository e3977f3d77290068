import type { Fault, FaultProxy, SeenRequest } from '../operator/source/fault-proxy.ts';
import { goodAdapter } from '../support/adapter-files.ts';
import type { Course } from './matrix.ts';
import type { Site } from './site.ts';

/** Small enough that an adapter is read in several ranges, and soon weary of a store that says nothing. */
export const RANGES = { rangeBytes: 32 << 10, stallMs: 1_000, paceBytes: 1 << 10, resumeDelayMs: 20 };
const SOME_BYTES = 100;
const TENSORS = 'adapter_model.safetensors';
const OTHER_SEED = 3;
/** Longer than a read takes to find it, and shorter than until the source is asked again. */
const OVERWRITTEN_MS = 300;

const ANY_REQUEST: Record<string, Fault> = {
  silence: { kind: 'silence' },
  reset: { kind: 'reset' },
  '503': { kind: 'answer', status: 503 },
};
const READ: Record<string, Fault> = {
  'stall within its answer': { kind: 'stall', afterBytes: SOME_BYTES },
  'cut within its answer': { kind: 'cut', afterBytes: SOME_BYTES },
};
const WRITE: Record<string, Fault> = { 'no answer to what was done': { kind: 'lostReply' } };
const OF_METHOD: Record<string, Record<string, Fault>> = { GET: READ, PUT: WRITE };

export interface StoreRequest {
  method: string;
  /** With the range of bytes, where it asks for one. */
  words: string;
  isOfTensors: boolean;
}

export function listingRequests(): { fault: FaultProxy['fault']; requests: StoreRequest[] } {
  const requests: StoreRequest[] = [];
  const fault = ({ method, url, range }: SeenRequest) => {
    const object = /\w+\.\w+(?=\?|$)/.exec(url)?.[0] ?? '';
    const words = [method, object, range ?? ''].join(' ').trim();
    requests.push({ method, words, isOfTensors: object === TENSORS });
    return null;
  };
  return { fault, requests };
}

export interface StorePlan {
  name: string;
  course: Course;
  unmet(): string | null;
}

/** All that may happen to one request of a run. */
export function plansFor({ method, isOfTensors }: StoreRequest, target: number): StorePlan[] {
  const faults = Object.entries({ ...ANY_REQUEST, ...OF_METHOD[method] });
  const plans = faults.map(([name, fault]) => failRequest(name, { target, fault }));
  return method === 'GET' && isOfTensors ? [...plans, overwriteBefore(target)] : plans;
}

function failRequest(name: string, { target, fault }: { target: number; fault: Fault }): StorePlan {
  let site: Site | null = null;
  const course: Course = {
    sourceRanges: RANGES,
    storeFault: (_request, count) => (count === target ? fault : null),
    arrange: (started) => {
      site = started;
    },
  };
  const unmet = () => (site?.storeProxy?.met.includes(fault) ? null : 'no request met it');
  return { name, course, unmet };
}

/** Other tensors lie there before the range is read, and soon the same again as before. */
function overwriteBefore(target: number): StorePlan {
  let site: Site | null = null;
  let overwritten: { restored: Promise<void> } | null = null;
  const course: Course = {
    sourceRanges: RANGES,
    storeFault: async (_request, count) => {
      if (count === target && site !== null)
        overwritten = await site.overwrite(TENSORS, goodAdapter(OTHER_SEED).tensors, OVERWRITTEN_MS);
      return null;
    },
    arrange: (started) => {
      site = started;
    },
    disturb: async () => await overwritten?.restored,
  };
  return { name: 'overwrite', course, unmet: () => (overwritten === null ? 'no request met it' : null) };
}
