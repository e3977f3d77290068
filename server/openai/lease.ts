import type { ResolvedModel } from '../adapters/lookup.ts';
import type { FailureCode, RequestEvent, Target } from '../engine/port.ts';
import { engineFailure, OpenAiError } from './errors.ts';
import type { Generation } from './plan.ts';
import type { Serving } from './serving.ts';

/** How often a request waits for a slot: another change may take it before the request leases it. */
const WAITS_MAX = 8;

/** Of a response's choices. */
let lastGroup = 0;

/** Which revision made a response; null for the base. */
export type LoraInfo = {
  name: string;
  revision: string;
  step: number | null;
  spans: { from: number; revision: string }[];
} | null;

/** A sequence that the engine has taken in: it keeps its revision to its end. */
export interface Lease {
  digest: string | null;
  events: AsyncGenerator<RequestEvent>;
}

interface Asked {
  model: string;
  resolved: ResolvedModel;
  generations: Generation[];
}

/** Takes in all choices of a response, or none. Waits while the revision is in no slot. */
export async function takeIn(
  serving: Serving,
  { model, resolved, generations }: Asked,
  signal: AbortSignal,
): Promise<{ lora: LoraInfo; leases: Lease[] }> {
  const { adapters } = serving;
  const asked = { ...resolved, digest: resolved.kind === 'revision' ? resolved.digest : null };
  if (asked.kind !== 'base') await adapters.enter(asked.name, asked.digest, signal);
  for (let waits = 0; ; waits += 1) {
    const taken = await submit(serving, generations, targetOf(resolved), signal);
    if (Array.isArray(taken)) {
      return { lora: loraInfo(serving, resolved, taken[0]?.digest ?? null), leases: taken };
    }
    const mayWait = taken === 'not_resident' && asked.kind !== 'base' && waits < WAITS_MAX;
    if (!mayWait) throw engineFailure(taken, model);
    await adapters.waitForSlot(asked.name, asked.digest, signal);
  }
}

/** All in one turn of the event loop: no swap in between can mix two revisions in one response. */
async function submit(
  { engine }: Serving,
  generations: Generation[],
  target: Target,
  signal: AbortSignal,
): Promise<Lease[] | FailureCode> {
  const group = ++lastGroup;
  const all = generations.map((generation) => engine.generate({ ...generation, target, group }, signal));
  const firsts = await Promise.allSettled(all.map((events) => events.next()));
  const leases: Lease[] = [];
  let failed: FailureCode | null = null;
  let thrown: unknown;
  for (const [index, first] of firsts.entries()) {
    if (first.status === 'rejected') {
      thrown ??= first.reason;
      continue;
    }
    const event: RequestEvent | undefined = first.value.done ? undefined : first.value.value;
    if (event?.type === 'failed') failed ??= event.code;
    else if (event?.type === 'accepted')
      leases.push({ digest: event.revision, events: all[index] as Lease['events'] });
    else thrown ??= new OpenAiError('internal', `The engine began with ${event?.type ?? 'nothing'}.`);
  }
  if (leases.length === generations.length) return leases;
  await Promise.all(all.map((events) => events.return(undefined)));
  if (failed === null || thrown !== undefined) throw thrown;
  return failed;
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

function loraInfo(serving: Serving, resolved: ResolvedModel, digest: string | null): LoraInfo {
  if (resolved.kind === 'base' || digest === null) return null;
  return { ...serving.adapters.describe(resolved.name, digest), spans: [{ from: 0, revision: digest }] };
}
