import { LorikeetError } from '../../../server/contract/errors.ts';
import { ADAPTER_FINALIZER } from '../../api/lora-adapter.ts';
import type { Placement } from '../../placement/placement.ts';
import type { Pod } from '../../pods/pod.ts';
import type { AdapterDeps } from '../deps.ts';
import { type Draft, openDraft } from '../draft.ts';
import { placementRefusal } from '../phases/place.ts';
import { recoverRecord } from '../recover.ts';

/** The adapter as it is now. */
export function openNamed(deps: AdapterDeps, namespace: string, name: string): Draft {
  if (deps.leader.leading === null) throw notLeader();
  const adapter = deps.adapters.get(`${namespace}/${name}`);
  if (adapter !== undefined) return openDraft(deps, adapter);
  const message = `There is no LoraAdapter ${name} in namespace ${namespace}`;
  throw new LorikeetError('adapter_not_found', message);
}

/** The adapter as it is now, where this process may change what its pods should serve. */
export function openPushable(deps: AdapterDeps, namespace: string, name: string): Draft {
  const draft = openNamed(deps, namespace, name);
  requirePushable(draft, deps);
  requireRecovered(draft, deps);
  return draft;
}

/** The adapter as it is now; of a pushed one it is known what it should have. */
export function openKnown(deps: AdapterDeps, namespace: string, name: string): Draft {
  const draft = openNamed(deps, namespace, name);
  if (draft.adapter.spec.source.push !== undefined) requireRecovered(draft, deps);
  return draft;
}

function requireRecovered(draft: Draft, deps: AdapterDeps): void {
  if (recoverRecord(draft, deps)) return;
  const message = 'The operator has just started and the pods have not reported yet; try again';
  throw new LorikeetError('no_pods', message);
}

/** The pods that can be given a revision now, and what it must fit. */
export function answeringPods({ placement, poolKey }: Draft): {
  pods: Pod[];
  fit: NonNullable<Placement['fit']>;
} {
  const { fit, desired } = placement;
  const pods = desired.filter((pod) => pod.reachable && pod.state !== null && pod.client.responsive);
  if (fit !== null && pods.length > 0) return { pods, fit };
  throw new LorikeetError('no_pods', `No pod of pool ${poolKey} answers`, {
    expected: desired.map((pod) => pod.name),
    actual: [],
  });
}

export function notLeader(): LorikeetError {
  return new LorikeetError('not_leader', 'This operator process does not lead');
}

/** Refuses what the state of the object does not allow. */
function requirePushable(draft: Draft, deps: AdapterDeps): void {
  const { adapter } = draft;
  const { name, deletionTimestamp, finalizers } = adapter.metadata;
  if (deletionTimestamp !== undefined) {
    throw new LorikeetError('adapter_deleting', `LoraAdapter ${name} is being deleted`);
  }
  if (adapter.spec.source.push === undefined) {
    const message = `LoraAdapter ${name} takes its tensors from an object store: change spec.source instead`;
    throw new LorikeetError('not_push_source', message, {
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
  const pinned = adapter.spec.update.revision;
  if (pinned !== undefined) {
    throw new LorikeetError('precondition_failed', `The spec of LoraAdapter ${name} names its revision`, {
      field: 'spec.update.revision',
      expected: null,
      actual: pinned,
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
  if (refusal.reason === 'QuotaExceeded') throw new LorikeetError('quota_exceeded', refusal.message);
  const isFull = refusal.reason === 'NoRoom';
  throw new LorikeetError(isFull ? 'no_capacity' : 'no_pods', refusal.message);
}
