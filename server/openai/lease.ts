import type { ResolvedModel } from '../adapters/registry.ts';
import type { RequestEvent, Target } from '../engine/port.ts';
import { ApiError, engineFailure } from './errors.ts';
import type { Generation } from './plan.ts';
import type { Serving } from './serving.ts';

/** How often a request waits for its revision to be brought into a slot before it is refused. */
const RESIDENCY_TRIES_MAX = 3;

/** Which revision made a response; null for the base. */
export type LoraInfo = {
  name: string;
  revision: string;
  step: number | null;
  spans: { from: number; revision: string }[];
} | null;

/** A sequence that the engine has taken in: it keeps its revision to its end. */
export interface Lease {
  revision: string | null;
  events: AsyncGenerator<RequestEvent>;
}

/**
 * Takes all choices of a response in, every one on the revision that the first one got: a swap in between must not
 * mix two revisions in one response.
 */
export async function takeIn(
  serving: Serving,
  request: { model: string; resolved: ResolvedModel; generations: Generation[] },
  signal: AbortSignal,
): Promise<{ lora: LoraInfo; leases: Lease[] }> {
  const { model, resolved, generations } = request;
  const [first, ...others] = generations;
  if (first === undefined) throw new ApiError('internal', 'No choice was asked for.');
  const taking = (generation: Generation, target: Target, digest: string | null) =>
    takeOne(serving, { model, generation, target, name: nameOf(resolved), digest }, signal);
  const digest = resolved.kind === 'revision' ? resolved.digest : null;
  const lead = await taking(first, targetOf(resolved), digest);
  const revision = lead.revision;
  const target: Target = revision === null ? { kind: 'base' } : { kind: 'revision', digest: revision };
  const rest = await Promise.allSettled(others.map((generation) => taking(generation, target, revision)));
  const leases = [lead, ...rest.flatMap((taken) => (taken.status === 'fulfilled' ? [taken.value] : []))];
  const refused = rest.find((taken) => taken.status === 'rejected');
  if (refused !== undefined) {
    await Promise.all(leases.map(({ events }) => events.return(undefined)));
    throw refused.reason;
  }
  return { lora: loraInfo(serving, resolved, revision), leases };
}

interface Taking {
  model: string;
  generation: Generation;
  target: Target;
  name: string | null;
  /** The revision to bring in if it is not resident; null = the current one. */
  digest: string | null;
}

async function takeOne(serving: Serving, taking: Taking, signal: AbortSignal): Promise<Lease> {
  const { model, generation, target, name, digest } = taking;
  for (let attempt = 1; ; attempt += 1) {
    const events = serving.engine.generate({ ...generation, target }, signal);
    const first = await events.next();
    if (first.done) throw new ApiError('internal', 'The engine ended without a word.');
    if (first.value.type === 'accepted') return { revision: first.value.revision, events };
    if (first.value.type !== 'failed')
      throw new ApiError('internal', `The engine began with ${first.value.type}.`);
    const mayRetry = first.value.code === 'not_resident' && name !== null && attempt <= RESIDENCY_TRIES_MAX;
    if (!mayRetry) throw engineFailure(first.value.code, model);
    await serving.adapters.ensureResident(name, digest);
    signal.throwIfAborted();
  }
}

function nameOf(resolved: ResolvedModel): string | null {
  return resolved.kind === 'base' ? null : resolved.name;
}

function targetOf(resolved: ResolvedModel): Target {
  switch (resolved.kind) {
    case 'base':
      return { kind: 'base' };
    case 'adapter':
      return { kind: 'adapter', name: resolved.name };
    case 'revision':
      return { kind: 'revision', digest: resolved.digest };
  }
}

function loraInfo(serving: Serving, resolved: ResolvedModel, revision: string | null): LoraInfo {
  if (resolved.kind === 'base' || revision === null) return null;
  return { ...serving.adapters.describe(resolved.name, revision), spans: [{ from: 0, revision }] };
}
