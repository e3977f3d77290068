import type { PushContext } from '../adapter/publish/publication.ts';

export interface ListedRevision {
  revision: string;
  step: number | null;
  bytes: number;
  rank: number;
  /** Whether it is the one that pods should serve. */
  desired: boolean;
  pods: { name: string; state: string; tier: string }[];
}

/** The revisions of an adapter that its pods hold, as they last reported; the desired one first, then by step. */
export function listRevisions({ servedName, pods, desired }: PushContext): ListedRevision[] {
  const listed = new Map<string, ListedRevision>();
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
