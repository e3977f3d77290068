import { z } from 'zod';

/** What the tests look at in a pod and in a LoraAdapter, read as any client would read it. */

const Metadata = z.object({
  name: z.string(),
  uid: z.string(),
  generation: z.number().optional(),
  deletionTimestamp: z.string().optional(),
});

const Condition = z.object({
  type: z.string(),
  status: z.enum(['True', 'False', 'Unknown']),
  reason: z.string().default(''),
  message: z.string().default(''),
});

const Pod = z.object({
  metadata: Metadata,
  status: z
    .object({
      podIP: z.string().optional(),
      conditions: z.array(Condition).optional(),
      containerStatuses: z.array(z.object({ restartCount: z.number() })).optional(),
    })
    .optional(),
});

export interface SeenPod {
  name: string;
  uid: string;
  ip: string;
  ready: boolean;
  terminating: boolean;
  restarts: number;
}

export function parsePod(object: unknown): SeenPod {
  const { metadata, status } = Pod.parse(object);
  const ready = status?.conditions?.find(({ type }) => type === 'Ready');
  return {
    name: metadata.name,
    uid: metadata.uid,
    ip: status?.podIP ?? '',
    ready: ready?.status === 'True',
    terminating: metadata.deletionTimestamp !== undefined,
    restarts: status?.containerStatuses?.[0]?.restartCount ?? 0,
  };
}

const Revision = z.object({ digest: z.string(), step: z.number().nullish() }).nullish();

const Adapter = z.object({
  metadata: Metadata,
  status: z
    .object({
      observedGeneration: z.number().optional(),
      conditions: z.array(Condition).optional(),
      currentRevision: Revision,
      desiredRevision: Revision,
      pods: z.object({ desired: z.number(), staged: z.number(), ready: z.number() }).partial().optional(),
      podErrors: z.array(z.object({ name: z.string(), reason: z.string(), message: z.string() })).optional(),
    })
    .optional(),
});

export interface SeenAdapter {
  name: string;
  generation: number;
  observedGeneration: number | undefined;
  conditions: Record<string, z.infer<typeof Condition>>;
  currentRevision: string | undefined;
  desiredRevision: string | undefined;
  step: number | null | undefined;
  pods: { desired?: number | undefined; staged?: number | undefined; ready?: number | undefined };
  podErrors: { name: string; reason: string; message: string }[];
}

export function parseAdapter(object: unknown): SeenAdapter {
  const { metadata, status } = Adapter.parse(object);
  return {
    name: metadata.name,
    generation: metadata.generation ?? 0,
    observedGeneration: status?.observedGeneration,
    conditions: Object.fromEntries(
      (status?.conditions ?? []).map((condition) => [condition.type, condition]),
    ),
    currentRevision: status?.currentRevision?.digest,
    desiredRevision: status?.desiredRevision?.digest,
    step: status?.currentRevision?.step,
    pods: status?.pods ?? {},
    podErrors: status?.podErrors ?? [],
  };
}
