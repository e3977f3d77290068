import { isDeepStrictEqual } from 'node:util';
import type { ResolvedModel } from '../adapters/lookup.ts';
import { HEADER } from '../contract/adapter-api.ts';
import type { Expectation } from '../contract/expectation.ts';
import { readExpectation, readWaitMs } from '../contract/headers.ts';
import type { Policy } from '../engine/port.ts';
import { badRequest, expectationUnmet, modelNotFound } from './errors.ts';
import type { AdapterLookup } from './serving.ts';

const WAIT_MS_DEFAULT = 2000;

/** Which revision may answer a request, and how long it waits for it to become current. */
export interface Expect {
  revision: Expectation;
  waitMs: number;
}

/** What a body says of that. */
export interface ExpectFields {
  expect: Expectation | null;
  wait_ms: number | null;
}

/** Null where any revision may answer. The headers are for clients that cannot change the body. */
export function readExpect(
  body: ExpectFields | undefined,
  headers: Parameters<typeof readExpectation>[0],
): Expect | null {
  const revision = agreed('expect', body?.expect ?? null, readExpectation(headers));
  const waitMs = agreed('wait_ms', body?.wait_ms ?? null, readWaitMs(headers));
  return revision === null ? null : { revision, waitMs: waitMs ?? WAIT_MS_DEFAULT };
}

function agreed<T>(field: keyof ExpectFields, inBody: T | null, inHeader: T | null): T | null {
  if (inBody === null || inHeader === null || isDeepStrictEqual(inBody, inHeader)) return inBody ?? inHeader;
  const header = HEADER[field === 'expect' ? 'expect' : 'waitMs'];
  throw badRequest(`lora.${field} and the header ${header} do not say the same`, `lora.${field}`);
}

/** What a request says of its revisions. */
export interface Terms {
  expect: Expect | null;
  policy: Policy;
}

/** A request that goes on with what comes later cannot stay on one revision. */
export function requireConsistent({ expect, policy }: Terms): void {
  if (policy !== 'latest' || expect?.revision.kind !== 'revision') return;
  throw badRequest('lora.policy latest goes with min_step, but not with a revision to expect', 'lora.policy');
}

/** What a request runs on; null where that is to be waited for. To be asked anew right before each submission. */
export type Choose = () => ResolvedModel | null;

/** The choice of a request that expects nothing stays, whatever becomes current. */
export function chooser(
  adapters: AdapterLookup,
  model: string | null,
  { expect, policy }: Terms,
  untilMs: number,
): Choose {
  if (model === null) return () => ({ kind: 'base' });
  if (expect !== null) {
    return () => {
      const chosen = chooseExpected(adapters, model, expect.revision, untilMs);
      // It is the current one: a step is met by no other.
      const moves = policy === 'latest' && chosen?.kind === 'revision' && chosen.name === model;
      return moves ? { kind: 'adapter', name: model } : chosen;
    };
  }
  const resolved = adapters.resolve(model);
  return () => resolved;
}

function chooseExpected(
  adapters: AdapterLookup,
  model: string,
  expectation: Expectation,
  untilMs: number,
): ResolvedModel | null {
  const found = adapters.resolveExpected(model, expectation);
  if (found.kind === 'base')
    throw badRequest('lora.expect is for adapters, not for the base model', 'lora.expect');
  if (found.kind !== 'unmet') return found;
  if (found.mayCome && performance.now() < untilMs) return null;
  if (found.actual === null) throw modelNotFound(model);
  throw expectationUnmet(model, expectation, found.actual);
}
