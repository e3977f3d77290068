import type { ResolvedModel } from '../adapters/lookup.ts';
import { meetsExpectation } from '../contract/expectation.ts';
import type { FailureCode, Policy, RequestEvent, Target } from '../engine/port.ts';
import { engineFailure, OpenAiError } from './errors.ts';
import { chooser, type Expect } from './expect.ts';
import type { Generation } from './plan.ts';
import type { Serving } from './serving.ts';

/** How often a request waits for a slot: another change may take it before the request leases it. */
const WAITS_MAX = 8;

/** Of a response's choices. */
let lastGroup = 0;

/** Which revision a response began with; null for the base. */
export type LoraInfo = { name: string; revision: string; step: number | null } | null;

/** A sequence that the engine has taken in: it has its revision. */
export interface Lease {
  digest: string | null;
  events: AsyncGenerator<RequestEvent>;
}

interface Asked {
  /** Null: the base, whatever its name means. */
  model: string | null;
  expect: Expect | null;
  policy: Policy;
  generations: Generation[];
}

/** What taking requests in stands on. */
export type Entrance = Pick<Serving, 'adapters' | 'engine'>;

/**
 * Takes in all choices of a response, or none. Waits for the revision that the request expects, for its turn, and while
 * it is in no slot; after each wait another revision may be the one.
 */
export async function takeIn(
  serving: Entrance,
  { model, expect, policy, generations }: Asked,
  signal: AbortSignal,
): Promise<{ lora: LoraInfo; leases: Lease[] }> {
  const { adapters } = serving;
  const untilMs = performance.now() + (expect?.waitMs ?? 0);
  const choose = chooser(adapters, model, { expect, policy }, untilMs);
  let entered: string | null = null;
  let needsSlot = false;
  for (let waits = 0; ; ) {
    const resolved = choose();
    if (resolved === null) {
      await adapters.nextChange(untilMs - performance.now(), signal);
      continue;
    }
    if (resolved.kind !== 'base') {
      const digest = resolved.kind === 'revision' ? resolved.digest : null;
      const turn = digest ?? resolved.name;
      if (turn !== entered) {
        entered = turn;
        needsSlot = false;
        await adapters.enter(resolved.name, digest, signal);
        continue;
      }
      if (needsSlot) {
        needsSlot = false;
        await adapters.waitForSlot(resolved.name, digest, signal);
        continue;
      }
    }
    // In one turn of the event loop with the choice, which may not hold in the next.
    const taken = await submit(serving, { generations, policy, target: targetOf(resolved) }, signal);
    if (Array.isArray(taken)) {
      const lora = loraInfo(serving, resolved, taken[0]?.digest ?? null);
      if (isExpected(lora, expect)) return { lora, leases: taken };
      // Taken by name, in the middle of an activation: the engine has changed, and the registry is about to.
      await Promise.all(taken.map(({ events }) => events.return(undefined)));
      await adapters.nextChange(untilMs - performance.now(), signal);
      continue;
    }
    needsSlot = taken === 'not_resident' && resolved.kind !== 'base' && waits < WAITS_MAX;
    if (!needsSlot) throw engineFailure(taken, model ?? 'the base');
    waits += 1;
  }
}

function isExpected(lora: LoraInfo, expect: Expect | null): boolean {
  if (lora === null || expect === null) return true;
  return meetsExpectation({ digest: lora.revision, step: lora.step }, expect.revision);
}

/** All in one turn of the event loop: no swap in between can mix two revisions in one response. */
async function submit(
  { engine, adapters }: Entrance,
  { generations, ...common }: { generations: Generation[]; policy: Policy; target: Target },
  signal: AbortSignal,
): Promise<Lease[] | FailureCode> {
  const group = ++lastGroup;
  const { target } = common;
  // No other moves.
  const name = target.kind === 'adapter' ? target.name : '';
  const stepOf = (digest: string) => adapters.describe(name, digest).step;
  const all = generations.map((generation) =>
    engine.generate({ ...generation, ...common, group }, signal, stepOf),
  );
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

function loraInfo(serving: Entrance, resolved: ResolvedModel, digest: string | null): LoraInfo {
  if (resolved.kind === 'base' || digest === null) return null;
  return serving.adapters.describe(resolved.name, digest);
}
