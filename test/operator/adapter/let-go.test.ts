import { expect, it } from 'vitest';
import { letAdaptersGo } from '../../../operator/adapter/let-go.ts';
import { ADAPTER_FINALIZER, type LoraAdapter } from '../../../operator/api/lora-adapter.ts';
import { ApiError } from '../../../operator/kube/api-error.ts';
import { loraAdapter } from './objects.ts';

/** What an API server holds. */
class Held {
  readonly finalizers: Map<string, string[]>;
  failures: Error[] = [];
  /** Somebody who puts it on again. */
  rival = false;

  constructor(finalizers: Record<string, string[]>) {
    this.finalizers = new Map(Object.entries(finalizers));
  }

  async liveIn(): Promise<LoraAdapter[]> {
    return [...this.finalizers].map(([name, finalizers]) => loraAdapter(name, { metadata: { finalizers } }));
  }

  async removeFinalizer({ metadata }: LoraAdapter): Promise<void> {
    const failure = this.failures.shift();
    if (failure) throw failure;
    const rest = this.finalizers.get(metadata.name)?.filter((name) => name !== ADAPTER_FINALIZER) ?? [];
    this.finalizers.set(metadata.name, this.rival ? [...rest, ADAPTER_FINALIZER] : rest);
  }
}

const letGo = (held: Held) => letAdaptersGo(held, undefined, 0);

it('takes our finalizer off every adapter, and no other', async () => {
  const held = new Held({ a: [ADAPTER_FINALIZER], b: ['other/one', ADAPTER_FINALIZER], c: [] });
  expect(await letGo(held)).toBe(2);
  expect(Object.fromEntries(held.finalizers)).toEqual({ a: [], b: ['other/one'], c: [] });
});

it('looks again where somebody else wrote meanwhile', async () => {
  const held = new Held({ a: [ADAPTER_FINALIZER] });
  held.failures = [new ApiError({ status: 409, reason: 'Conflict' }, 'the object has been modified')];
  expect(await letGo(held)).toBe(1);
  expect(held.finalizers.get('a')).toEqual([]);
});

it('fails where an operator runs that puts it on again', async () => {
  const held = new Held({ a: [ADAPTER_FINALIZER] });
  held.rival = true;
  await expect(letGo(held)).rejects.toThrow('somebody puts it on again');
});

it('has nothing to do where the definition is gone', async () => {
  const held = new Held({});
  held.liveIn = () => Promise.reject(new ApiError({ status: 404, reason: 'NotFound' }, 'no such resource'));
  expect(await letGo(held)).toBe(0);
});
