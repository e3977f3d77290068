import { NAME_LENGTH_MAX, NAME_PATTERN } from '../../../server/contract/adapter-api.ts';
import { REASONS, type Verdict } from '../../api/conditions.ts';
import { ownerIn } from '../../placement/lookup.ts';
import { podsText } from '../../pods/words.ts';
import type { AdapterDeps } from '../deps.ts';
import { type Draft, lookAgain, type Phase } from '../draft.ts';
import { excessOf, excessVerdict } from '../quota.ts';
import { QUOTA_RETRY_MS } from './admit.ts';

/** Which pods should hold the adapter, and whether it may have its name in them. */
export const place: Phase = {
  condition: 'Placed',
  whenSuspended: true,
  async run(draft, deps) {
    const refusal = placementRefusal(draft, deps);
    if (refusal?.reason === 'QuotaExceeded') lookAgain(draft, QUOTA_RETRY_MS);
    if (refusal !== null) return { verdict: refusal, next: false };
    const { desired, shortage } = draft.placement;
    // On those that have room it is served all the same.
    if (shortage !== null)
      return { verdict: { status: 'False', reason: 'NoRoom', message: shortage }, next: true };
    const message = `${podsText(desired.length)} of pool ${draft.adapter.spec.poolRef.name}`;
    return { verdict: { status: 'True', reason: 'Placed', message }, next: true };
  },
};

export function placementRefusal(draft: Draft, deps: AdapterDeps): Required<Verdict> | null {
  const { pool, servedName, poolKey, adapter, placement, standing } = draft;
  if (standing === 'unknown') {
    const message = 'The labels of the namespace have not been read yet.';
    return { status: 'Unknown', reason: 'Pending', message };
  }
  // The same words whether or not there is such a pool: that is not for strangers to find out.
  if (standing === 'refused') {
    const message = `No ServerPool ${poolKey} takes adapters of namespace ${adapter.metadata.namespace}.`;
    return { status: 'False', reason: 'NotPermitted', message };
  }
  if (pool === null) {
    const message = `There is no ServerPool ${poolKey}.`;
    return { status: 'False', reason: 'PoolNotFound', message };
  }
  const name = nameRefusal(draft);
  if (name !== null) return { status: 'False', reason: 'ServedNameInvalid', message: name };
  const owner = ownerIn(deps, poolKey, servedName);
  if (owner !== null && owner.metadata.uid !== adapter.metadata.uid) {
    const isNear = owner.metadata.namespace === adapter.metadata.namespace;
    const who = isNear ? `LoraAdapter ${owner.metadata.name}` : 'A LoraAdapter of another namespace';
    const message = `${who} is older and serves ${servedName} in pool ${pool.metadata.name}.`;
    return { status: 'False', reason: 'ServedNameTaken', message };
  }
  // Its bytes are judged where they are known.
  const excess = excessOf(draft, deps, 0);
  if (excess?.limit === 'adapters') return excessVerdict(draft, excess);
  if (placement.desired.length > 0) return null;
  if (placement.shortage !== null) {
    return { status: 'False', reason: 'NoRoom', message: placement.shortage };
  }
  if (placement.members.length > 0) {
    return { status: 'False', reason: 'NoReplicas', message: REASONS.NoReplicas };
  }
  const others = placement.mismatched.length;
  const message =
    others === 0
      ? `Pool ${pool.metadata.name} has no running pod.`
      : `None of the ${others} pods of pool ${pool.metadata.name} has its base model ${pool.spec.baseModel.name}.`;
  return { status: 'False', reason: 'NoPods', message };
}

function nameRefusal({ servedName, pool }: Draft): string | null {
  if (servedName === pool?.spec.baseModel.name) {
    return `${servedName} is the name of the base model: clients could not tell them apart. Set spec.servedName.`;
  }
  if (servedName.length > NAME_LENGTH_MAX || !NAME_PATTERN.test(servedName)) {
    return `Expected at most ${NAME_LENGTH_MAX} of A-Z a-z 0-9 . _ - : / and at the end @<number> for the served name but received ${servedName}.`;
  }
  return null;
}
