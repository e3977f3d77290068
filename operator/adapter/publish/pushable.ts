import { LorikeetError } from '../../../server/contract/errors.ts';
import { ADAPTER_FINALIZER } from '../../api/lora-adapter.ts';
import type { AdapterDeps } from '../deps.ts';
import type { Draft } from '../draft.ts';
import { placementRefusal } from '../phases/place.ts';

/** Refuses a push that the state of the object does not allow. */
export function requirePushable(draft: Draft, deps: AdapterDeps): void {
  const { adapter } = draft;
  const { name, deletionTimestamp, finalizers } = adapter.metadata;
  if (deletionTimestamp !== undefined) {
    throw new LorikeetError('adapter_deleting', `LoraAdapter ${name} is being deleted`);
  }
  if (adapter.spec.source.push === undefined) {
    throw new LorikeetError('not_push_source', `LoraAdapter ${name} takes its tensors from elsewhere`, {
      field: 'spec.source',
      expected: 'push',
      actual: Object.keys(adapter.spec.source)[0],
    });
  }
  if (adapter.spec.suspend) {
    throw new LorikeetError('precondition_failed', `LoraAdapter ${name} is suspended`, {
      field: 'spec.suspend',
      expected: false,
      actual: true,
    });
  }
  // Without it the object could go while its tensors stay.
  if (!finalizers?.includes(ADAPTER_FINALIZER)) {
    throw new LorikeetError('no_pods', `The operator has not taken up LoraAdapter ${name} yet; try again`);
  }
  const refusal = placementRefusal(draft, deps);
  if (refusal === null) return;
  const isName = refusal.reason === 'ServedNameTaken' || refusal.reason === 'ServedNameInvalid';
  if (isName) throw new LorikeetError('precondition_failed', refusal.message, { field: 'spec.servedName' });
  throw new LorikeetError('no_pods', refusal.message);
}
