import type { LoraAdapter } from '../api/lora-adapter.ts';
import type { ServerPool } from '../api/server-pool.ts';
import { keyOf } from '../kube/resource.ts';
import { beyondQuota, type Claim } from '../placement/quota.ts';
import type { Records } from './records.ts';

/** By uid, those of a pool's adapters that get no more than they serve now: their namespace may not have more. */
export function heldBack(
  adapters: readonly LoraAdapter[],
  pool: ServerPool,
  records: Pick<Records, 'get'>,
): ReadonlySet<string> {
  const quota = pool.spec.tenancy?.quota;
  if (quota === undefined) return new Set();
  const byNamespace = Map.groupBy(adapters, ({ metadata }) => metadata.namespace);
  const beyond = [...byNamespace.values()].flatMap((members) => {
    const claims = members.map((adapter) => claimOf(adapter, { records }));
    return [...beyondQuota(claims, quota).keys()];
  });
  return new Set(beyond);
}

/** This process knows more of what it has looked at than status says. */
export function claimOf(adapter: LoraAdapter, { records }: { records: Pick<Records, 'get'> }): Claim {
  const { uid = '', creationTimestamp = '' } = adapter.metadata;
  const known = records.get(keyOf(adapter));
  const isKnown = known !== undefined && known.uid === uid && known.recovered;
  const { desired, current } = isKnown
    ? known
    : {
        desired: adapter.status?.desiredRevision ?? null,
        current: adapter.status?.currentRevision ?? null,
      };
  const servedBytes = current?.bytes ?? null;
  return { uid, createdAt: creationTimestamp, servedBytes, wantedBytes: desired?.bytes ?? 0 };
}
