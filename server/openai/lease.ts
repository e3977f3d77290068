import type { ResolvedModel } from '../adapters/lookup.ts';
import { meetsExpectation } from '../contract/expectation.ts';
import type { FailureCode, Target } from '../engine/port.ts';
import { engineFailure } from './errors.ts';
import { chooser, type Terms } from './expect.ts';
import type { AdapterLookup } from './serving.ts';

/** How often a request waits for a slot: another change may take it before the request leases it. */
const WAITS_MAX = 8;

/** Which revision a response began with; null for the base. */
export type LoraInfo = { name: string; revision: string; step: number | null } | null;

/** What an engine has taken in. */
export interface Taken {
  /** Null: the base. */
  digest: string | null;
  /** It is not wanted after all. */
  leave(): unknown;
}

/** Chooses in the turn of the event loop in which it is called; or says why it takes nothing in. */
export type Submit<T extends Taken> = (target: Target) => Promise<T | FailureCode> | T | FailureCode;

/** `model` null: the base, whatever its name means. */
export type Asked = { model: string | null } & Terms;

/**
 * Takes a request in. Waits for the revision that it expects, for its turn, and while it is in no slot; after each wait
 * another revision may be the one.
 */
export async function takeIn<T extends Taken>(
  adapters: AdapterLookup,
  { model, expect, policy }: Asked,
  submit: Submit<T>,
  signal: AbortSignal,
): Promise<{ lora: LoraInfo; taken: T }> {
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
    const taken = await submit(targetOf(resolved));
    if (typeof taken === 'object') {
      const lora = loraInfo(adapters, resolved, taken.digest);
      if (isExpected(lora, expect)) return { lora, taken };
      // Taken by name, in the middle of an activation: the engine has changed, and the registry is about to.
      await taken.leave();
      await adapters.nextChange(untilMs - performance.now(), signal);
      continue;
    }
    needsSlot = taken === 'not_resident' && resolved.kind !== 'base' && waits < WAITS_MAX;
    if (!needsSlot) throw engineFailure(taken, model ?? 'the base');
    waits += 1;
  }
}

function isExpected(lora: LoraInfo, expect: Terms['expect']): boolean {
  if (lora === null || expect === null) return true;
  return meetsExpectation({ digest: lora.revision, step: lora.step }, expect.revision);
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

function loraInfo(adapters: AdapterLookup, resolved: ResolvedModel, digest: string | null): LoraInfo {
  if (resolved.kind === 'base' || digest === null) return null;
  return adapters.describe(resolved.name, digest);
}
