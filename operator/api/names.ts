/** Names that objects, pods and leases carry between the operator and its users. */
import type { LoraAdapter } from './lora-adapter.ts';

/** `adapter lorikeet.dev/refresh: <anything new>` makes the operator resolve the source again. */
export const REFRESH_ANNOTATION = 'lorikeet.dev/refresh';
/** The last value of it that has been acted on; written by the operator. */
export const REFRESHED_ANNOTATION = 'lorikeet.dev/refreshed';
export const PUSH_ADDRESS = 'lorikeet.dev/push-address';

export function poolKeyOf(adapter: LoraAdapter): string {
  const { name, namespace = adapter.metadata.namespace } = adapter.spec.poolRef;
  return `${namespace}/${name}`;
}
