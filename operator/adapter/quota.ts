import { LorikeetError } from '../../server/contract/errors.ts';
import type { Verdict } from '../api/conditions.ts';
import { tenantsOf } from '../placement/lookup.ts';
import { beyondQuota, type Claim, type Excess, nextPush } from '../placement/quota.ts';
import { bytesText } from '../pods/words.ts';
import type { AdapterDeps } from './deps.ts';
import type { Draft } from './draft.ts';
import { claimOf } from './quota-claims.ts';

/** How far the adapter is beyond what its namespace may have in the pool, if it gets `wantedBytes`; null: it is not. */
export function excessOf(draft: Draft, deps: AdapterDeps, wantedBytes: number): Excess | null {
  const quota = draft.pool?.spec.tenancy?.quota;
  if (quota === undefined) return null;
  const { metadata } = draft.adapter;
  const claims = tenantsOf(deps, draft.poolKey)
    .filter((other) => other.metadata.namespace === metadata.namespace)
    .map((other): Claim => {
      const claim = claimOf(other, deps);
      return claim.uid === metadata.uid ? { ...claim, wantedBytes } : claim;
    });
  return beyondQuota(claims, quota).get(metadata.uid ?? '') ?? null;
}

export function excessVerdict(draft: Draft, excess: Excess): Required<Verdict> {
  return { status: 'False', reason: 'QuotaExceeded', message: excessText(draft, excess) };
}

export function quotaExceeded(draft: Draft, excess: Excess): LorikeetError {
  const { limit, max, used } = excess;
  const detail = { field: `tenancy.quota.${limit}`, expected: max, actual: used };
  return new LorikeetError('quota_exceeded', excessText(draft, excess), detail);
}

function excessText({ adapter, poolKey }: Draft, { limit, max, used, wanted }: Excess): string {
  const text = (value: number) => (limit === 'bytes' ? bytesText(value) : `${value} adapters`);
  const more = limit === 'bytes' ? `, and this one needs ${bytesText(wanted)} more` : '';
  return `Namespace ${adapter.metadata.namespace} may have ${text(max)} in pool ${poolKey} and has ${text(used)}${more}.`;
}

/** Pushes of the last minute, by pool and namespace. What a leader counted ends with it. */
export class PushRates {
  readonly #times = new Map<string, number[]>();

  /** Counts a push that begins; throws quota_exceeded where it may not. */
  begin({ pool, poolKey, adapter }: Draft, nowMs: number): void {
    const max = pool?.spec.tenancy?.quota?.pushesPerMinute;
    const { namespace } = adapter.metadata;
    const key = `${poolKey} ${namespace}`;
    if (max === undefined) {
      this.#times.delete(key);
      return;
    }
    const { times, waitMs } = nextPush(this.#times.get(key) ?? [], max, nowMs);
    this.#times.set(key, times);
    if (waitMs === 0) return;
    const message = `Namespace ${namespace} may push ${max} times a minute to pool ${poolKey}`;
    throw new LorikeetError('quota_exceeded', message, {
      field: 'tenancy.quota.pushesPerMinute',
      expected: max,
      actual: times.length,
      retryAfterSeconds: Math.max(1, Math.ceil(waitMs / 1000)),
    });
  }
}
