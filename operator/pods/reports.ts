import { z } from 'zod';
import { AdapterState, PodChanges, PodState } from '../../server/contract/adapter-api.ts';
import { jsonOrNull } from '../../server/transfer/call.ts';
import { PodUnreachable } from '../../server/transfer/unreachable.ts';

const SHARED_MAX = 16_384;

const WithAdapters = { adapters: z.array(z.unknown()) };
const StateShell = PodState.extend(WithAdapters);
const ChangesShell = PodChanges.extend(WithAdapters);

/**
 * Reads what pods report. Most pods of a pool say the same of an adapter: that is checked once and kept once, so that
 * 2,000 adapters on 200 pods are 2,000 objects and not 400,000. Nobody changes a report.
 */
export class Reports {
  /** By its JSON; the latest asked for last. */
  readonly #shared = new Map<string, AdapterState>();

  state(text: string): PodState {
    const shell = parsed(StateShell, text);
    return { ...shell, adapters: this.#adapters(shell.adapters) };
  }

  changes(text: string): PodChanges {
    const shell = parsed(ChangesShell, text);
    return { ...shell, adapters: this.#adapters(shell.adapters) };
  }

  #adapters(items: readonly unknown[]): AdapterState[] {
    return items.map((item, at) => this.#adapter(item, at));
  }

  #adapter(item: unknown, at: number): AdapterState {
    const text = JSON.stringify(item) ?? '';
    const known = this.#shared.get(text);
    const adapter = known ?? Object.freeze(checked(AdapterState, item, ['adapters', at]));
    this.#shared.delete(text);
    this.#shared.set(text, adapter);
    const [oldest] = this.#shared.keys();
    if (this.#shared.size > SHARED_MAX && oldest !== undefined) this.#shared.delete(oldest);
    return adapter;
  }
}

export function parsed<T>(schema: z.ZodType<T>, text: string): T {
  return checked(schema, jsonOrNull(text), []);
}

function checked<T>(schema: z.ZodType<T>, value: unknown, at: readonly PropertyKey[]): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const path = [...at, ...(issue?.path ?? [])].join('.');
  throw new PodUnreachable(`the reply is not of the admin API: ${path}: ${issue?.message}`);
}
