import type { Held } from '../adapter/publish/publication.ts';

export interface ListedRevision {
  revision: string;
  step: number | null;
  bytes: number;
  rank: number;
  /** Whether it is the one that pods should serve. */
  desired: boolean;
  /** Whether a rollback may go back to it. */
  earlier: boolean;
  pods: { name: string; state: string; tier: string }[];
}

/** What pods hold of an adapter, as they last reported, and the spool of what was desired; the desired one first, then by step. */
export function listRevisions({ servedName, pods, desired, earlier }: Held): ListedRevision[] {
  const listed = new Map<string, ListedRevision>(
    earlier.map(({ digest, step, bytes, rank }) => {
      return [digest, { revision: digest, step, bytes, rank, desired: false, earlier: true, pods: [] }];
    }),
  );
  for (const { name, state } of pods) {
    const held = state?.adapters.find((adapter) => adapter.name === servedName)?.revisions ?? [];
    for (const { digest, step, bytes, rank, state: stage, tier } of held) {
      const known = listed.get(digest);
      const revision = known ?? {
        revision: digest,
        step,
        bytes,
        rank,
        desired: digest === desired?.digest,
        earlier: false,
        pods: [],
      };
      revision.pods.push({ name, state: stage, tier });
      listed.set(digest, revision);
    }
  }
  const order = (a: ListedRevision, b: ListedRevision) =>
    Number(b.desired) - Number(a.desired) ||
    (b.step ?? -1) - (a.step ?? -1) ||
    (a.revision < b.revision ? -1 : 1);
  return [...listed.values()].sort(order);
}
