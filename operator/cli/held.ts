import { z } from 'zod';

/** What the operator says of an adapter's revisions: which pod holds what. */
export const HeldRevisions = z.object({
  servedName: z.string(),
  desired: z.object({ digest: z.string(), step: z.number().nullable() }).nullable(),
  revisions: z.array(
    z.object({
      revision: z.string(),
      step: z.number().nullable(),
      bytes: z.number(),
      rank: z.number(),
      desired: z.boolean(),
      earlier: z.boolean(),
      pods: z.array(z.object({ name: z.string(), state: z.string(), tier: z.string() })),
    }),
  ),
});
export type HeldRevisions = z.infer<typeof HeldRevisions>;

export interface HeldRow {
  pod: string;
  revision: string;
  step: number | null;
  state: string;
  tier: string;
  desired: boolean;
}

const ORDER = ['current', 'staged', 'retired'];

/** By pod, what it serves first. */
export function heldRows({ revisions }: HeldRevisions): HeldRow[] {
  const rows = revisions.flatMap(({ revision, step, desired, pods }) =>
    pods.map(({ name, state, tier }) => ({ pod: name, revision, step, state, tier, desired })),
  );
  const rank = ({ state }: HeldRow) => ORDER.indexOf(state);
  return rows.sort(
    (a, b) => a.pod.localeCompare(b.pod) || rank(a) - rank(b) || (b.step ?? -1) - (a.step ?? -1),
  );
}
