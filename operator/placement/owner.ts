import { type LoraAdapter, servedNameOf } from '../api/lora-adapter.ts';
import { poolKeyOf } from '../api/names.ts';

/** Of adapters with one served name in one pool the oldest has it; uid decides between twins. Null: nobody has it. */
export function ownerOfName(
  adapters: readonly LoraAdapter[],
  poolKey: string,
  servedName: string,
): LoraAdapter | null {
  let owner: LoraAdapter | null = null;
  for (const adapter of adapters) {
    if (servedNameOf(adapter) !== servedName || poolKeyOf(adapter) !== poolKey) continue;
    if (owner === null || isOlder(adapter, owner)) owner = adapter;
  }
  return owner;
}

/** Who has each served name of a pool, of the pool's adapters. */
export function ownersOf(adapters: readonly LoraAdapter[]): Map<string, LoraAdapter> {
  const owners = new Map<string, LoraAdapter>();
  for (const adapter of adapters) {
    const owner = owners.get(servedNameOf(adapter));
    if (owner === undefined || isOlder(adapter, owner)) owners.set(servedNameOf(adapter), adapter);
  }
  return owners;
}

function isOlder(a: LoraAdapter, b: LoraAdapter): boolean {
  const timeA = Date.parse(a.metadata.creationTimestamp ?? '');
  const timeB = Date.parse(b.metadata.creationTimestamp ?? '');
  if (timeA !== timeB) return timeA < timeB;
  return (a.metadata.uid ?? '') < (b.metadata.uid ?? '');
}
