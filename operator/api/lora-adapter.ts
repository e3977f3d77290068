import { z } from 'zod';
import {
  DIGEST_PATTERN,
  InFlight,
  NAME_LENGTH_MAX,
  NAME_PATTERN,
} from '../../server/contract/adapter-api.ts';
import type { KubeObject, Resource } from '../kube/resource.ts';
import { type AdapterConditionType, type Condition, Conditions, ObservedGeneration } from './conditions.ts';
import { ObjectName, Sha256 } from './fields.ts';
import { Duration, Replicas } from './quantity.ts';
import { SOURCE_RULES, Source } from './source.ts';

export const API_GROUP = 'lorikeet.dev';
export const API_VERSION = 'v1alpha1';
export const ADAPTER_FINALIZER = `${API_GROUP}/adapter`;

export const LORA_ADAPTERS: Resource = {
  group: API_GROUP,
  version: API_VERSION,
  plural: 'loraadapters',
  kind: 'LoraAdapter',
  namespaced: true,
};

export const POD_ERRORS_MAX = 20;
export const KEEP_REVISIONS_MAX = 16;

const ServedName = z.string().max(NAME_LENGTH_MAX).regex(NAME_PATTERN);
const Digest = z.string().max(71).regex(DIGEST_PATTERN);
const TargetModules = z.array(z.string().max(256)).max(128);
const Count = z.number().int().nonnegative();

const Verify = z.object({
  sha256: Sha256.optional().describe('Lower-case hex SHA-256 of adapter_model.safetensors.'),
  rank: z.number().int().min(1).max(4096).optional().describe('The largest rank of any module.'),
  targetModules: TargetModules.min(1).optional().describe('The modules that carry tensors, in any order.'),
});

const Refresh = z.object({
  mode: z
    .enum(['Pinned', 'Poll'])
    .default('Pinned')
    .describe(
      'Pinned: the source is looked at when spec.source or the annotation lorikeet.dev/refresh changes. Poll: also every interval; what is served stays until other content has been fetched and verified.',
    ),
  interval: Duration.default('5m').describe(
    'How often Poll looks whether the source has other content, give or take a tenth. At least 10s.',
  ),
});

const REFRESH_RULES = [
  {
    rule: "!has(self.interval) || duration(self.interval) >= duration('10s')",
    message: 'interval must be at least 10s',
  },
];

const Update = z.object({
  consistency: z
    .enum(['PerPod', 'Barrier'])
    .default('PerPod')
    .describe(
      'PerPod: each pod swaps as soon as it can. Barrier: none does before every desired pod holds the revision, then all at once; a push that one of them does not take is refused.',
    ),
  maxSkew: Duration.default('500ms').describe(
    'With Barrier: an event warns where the pods of one swap confirm it further apart.',
  ),
  inFlight: InFlight.default('Finish').describe(
    'What becomes of running requests that do not say it themselves. Finish: one ends on the revision that it began with. Migrate: it goes on with the new one between two steps.',
  ),
  revision: Digest.optional().describe(
    'An earlier revision that is kept: it is the desired one, whatever the source has, and pushes are refused, until the field is removed.',
  ),
  keepRevisions: z
    .number()
    .int()
    .min(0)
    .max(KEEP_REVISIONS_MAX)
    .default(2)
    .describe('Earlier revisions that pods keep, for requests that pin one and for going back.'),
});

const Deletion = z.object({
  policy: z
    .enum(['Drain', 'Immediate'])
    .default('Drain')
    .describe('Drain: running requests may finish first. Immediate: the adapter is removed at once.'),
  drainTimeout: Duration.default('60s').describe(
    'How long Drain waits, and how long a silent pod holds deletion up.',
  ),
});

const PlacementSpec = z.object({
  mode: z
    .enum(['All', 'Fixed', 'Auto'])
    .default('All')
    .describe(
      'All: every pod of the pool. Fixed: as many as replicas says. Auto: as many as its share of the traffic asks for, at least replicas and at most maxReplicas.',
    ),
  replicas: Replicas.optional().describe(
    'A number of pods, or a share of the pool such as "50%", rounded up. Fixed needs it; the least of Auto, by default 1.',
  ),
  maxReplicas: Replicas.optional().describe(
    'The most of Auto, in the same words; by default all. Where replicas is more, that counts.',
  ),
  spread: z
    .enum(['zone'])
    .optional()
    .describe('zone: evenly over the zones that the label topology.kubernetes.io/zone of the pods names.'),
  priority: z
    .number()
    .int()
    .min(-1_000_000)
    .max(1_000_000)
    .default(0)
    .describe('Where host memory is short, a higher one gets it first. All comes before every other mode.'),
});
export type PlacementSpec = z.output<typeof PlacementSpec>;

/** The default of the whole is checked before mode has its own. */
const PLACEMENT_RULES = [
  {
    rule: "!has(self.mode) || self.mode != 'Fixed' || has(self.replicas)",
    message: 'mode Fixed needs replicas',
  },
  {
    rule: "!has(self.replicas) || (has(self.mode) && self.mode != 'All')",
    message: 'replicas needs mode Fixed or Auto',
  },
  {
    rule: "!has(self.maxReplicas) || (has(self.mode) && self.mode == 'Auto')",
    message: 'maxReplicas needs mode Auto',
  },
];

const SPEC_RULES = [
  {
    rule: 'has(self.servedName) == has(oldSelf.servedName) && (!has(self.servedName) || self.servedName == oldSelf.servedName)',
    message: 'servedName is immutable: make another LoraAdapter',
  },
];

export const LoraAdapterSpec = z
  .object({
    poolRef: z
      .object({
        name: ObjectName.describe('A ServerPool.'),
        namespace: ObjectName.optional().describe(
          'Its namespace; its spec.tenancy must allow that of the adapter. Default: the same namespace.',
        ),
      })
      .describe('The pool whose pods hold the adapter. Immutable.')
      .meta({
        'x-kubernetes-validations': [
          { rule: 'self == oldSelf', message: 'poolRef is immutable: make another LoraAdapter' },
        ],
      }),
    servedName: ServedName.optional().describe(
      'What clients send as "model". Unique in the pool, immutable. Default: metadata.name.',
    ),
    source: Source.describe('Where the tensors come from: exactly one member, which stays the same.').meta({
      'x-kubernetes-validations': SOURCE_RULES,
    }),
    verify: Verify.optional().describe(
      'What the adapter is expected to be; anything else is refused before a pod sees it.',
    ),
    refresh: Refresh.prefault({})
      .describe('When the source is looked at again. A pushed adapter has no use for it.')
      .meta({ 'x-kubernetes-validations': REFRESH_RULES }),
    placement: PlacementSpec.prefault({})
      .describe('Which pods of the pool hold the adapter.')
      .meta({ 'x-kubernetes-validations': PLACEMENT_RULES }),
    update: Update.prefault({}).describe('How a new revision takes the place of the old one.'),
    deletion: Deletion.prefault({}).describe('How the adapter leaves the pods when the object is deleted.'),
    suspend: z
      .boolean()
      .default(false)
      .describe('True: what is loaded stays, nothing changes, pushes are refused.'),
  })
  .describe('What should be.')
  .meta({ 'x-kubernetes-validations': SPEC_RULES });
export type LoraAdapterSpec = z.output<typeof LoraAdapterSpec>;

export const RevisionRecord = z.object({
  digest: Digest.describe('The identity of the content.'),
  short: z.string().max(12).describe('The first twelve hexadecimal digits of digest.'),
  step: Count.nullable().describe("The trainer's step, where it gave one."),
  bytes: Count.describe('Size of the safetensors file.'),
  rank: Count.describe('The largest rank of any module.'),
  targetModules: TargetModules.describe('The modules that carry tensors.'),
  sourceVersion: z
    .string()
    .max(1024)
    .optional()
    .describe('What the source calls this content: an ETag or a version.'),
  pushedBy: z.string().max(512).optional().describe('The account that pushed it.'),
  at: z.iso.datetime().describe('When the operator first had it.'),
  accepted: z
    .object({
      term: Count.describe('leaseTransitions of the lease under which it was accepted.'),
      sequence: Count.describe('Grows with each push and rollback that this leader accepts.'),
    })
    .optional()
    .describe('Orders the pushes and rollbacks that operators accepted: pods should serve the latest.'),
  rollback: z
    .object({
      from: Digest.describe('The revision that it took the place of.'),
      reachedStep: Count.nullable().describe('The newest step before: a push must have a later one.'),
      by: z.string().max(512).optional().describe('The account that asked for it.'),
    })
    .optional()
    .describe('Present where it became the desired revision by a rollback.'),
});
export type RevisionRecord = z.infer<typeof RevisionRecord>;

export const PodError = z.object({
  name: ObjectName.describe('The pod.'),
  reason: z.string().max(64).describe('The code of the refusal, or Unreachable.'),
  message: z.string().max(256).describe('What the pod said.'),
  retryAt: z.iso.datetime().optional().describe('When the operator tries again; absent where it does not.'),
});
export type PodError = z.infer<typeof PodError>;

const PodCounts = z.object({
  desired: Count.describe('Pods that should hold the adapter.'),
  staged: Count.describe('Of these, pods that hold the desired revision.'),
  ready: Count.describe('Of these, pods that have confirmed that they serve it.'),
  summary: z.string().max(32).describe('ready/desired, for kubectl get.'),
});

const Swap = z.object({
  durationMs: z.number().nonnegative().describe('From the first order to activate to the last confirmation.'),
  skewMs: z.number().nonnegative().describe('From the first confirmation to the last.'),
  bytes: Count.describe('Size of the revision.'),
  pods: Count.describe('Pods that took part.'),
});

export const LoraAdapterStatus = z
  .object({
    observedGeneration: ObservedGeneration.optional().describe(
      'The metadata.generation that this status is about; -1: none yet.',
    ),
    conditions: Conditions.optional().describe(
      'How far the adapter has come, one condition per step. Where Ready is not True, Reconciling or Stalled is there too.',
    ),
    servedName: z.string().max(NAME_LENGTH_MAX).optional().describe('What clients send as "model".'),
    pushURL: z.string().max(2048).optional().describe('Where a trainer sends revisions with PUT.'),
    desiredRevision: RevisionRecord.optional().describe('The revision that pods should serve.'),
    currentRevision: RevisionRecord.optional().describe(
      'The newest revision that every desired pod has confirmed.',
    ),
    previousRevisions: z
      .array(RevisionRecord)
      .max(KEEP_REVISIONS_MAX)
      .optional()
      .describe('Earlier revisions that pods still hold, newest first.'),
    pods: PodCounts.optional().describe('How many pods have come how far.'),
    podErrors: z.array(PodError).max(POD_ERRORS_MAX).optional().describe('Pods that failed, worst first.'),
    lastSwap: Swap.optional().describe('How the last change of revision went.'),
  })
  .describe('What is.');
export type LoraAdapterStatus = Omit<z.infer<typeof LoraAdapterStatus>, 'conditions'> & {
  conditions?: Condition<AdapterConditionType>[];
};

export interface LoraAdapter extends KubeObject {
  spec: LoraAdapterSpec;
  status?: LoraAdapterStatus;
}

/** What clients send as "model"; the API server has checked spec.servedName, and metadata.name by its own rules. */
export function servedNameOf(adapter: LoraAdapter): string {
  return adapter.spec.servedName ?? adapter.metadata.name;
}

export function shortDigest(digest: string): string {
  return digest.replace(/^sha256:/, '').slice(0, 12);
}

export function podsSummary(pods: { desired: number; ready: number }): string {
  return `${pods.ready}/${pods.desired}`;
}
