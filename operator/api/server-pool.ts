import { z } from 'zod';
import { DIGEST_PATTERN, NAME_LENGTH_MAX } from '../../server/contract/adapter-api.ts';
import type { KubeObject, Resource } from '../kube/resource.ts';
import { type Condition, Conditions, ObservedGeneration, type PoolConditionType } from './conditions.ts';
import { ObjectName } from './fields.ts';
import { LabelSelector } from './label-selector.ts';
import { API_GROUP, API_VERSION, POD_ERRORS_MAX, PodError } from './lora-adapter.ts';
import { Quantity } from './quantity.ts';

export const SERVER_POOLS: Resource = {
  group: API_GROUP,
  version: API_VERSION,
  plural: 'serverpools',
  kind: 'ServerPool',
  namespaced: true,
};

export const UNMANAGED_MAX = 50;

const Count = z.number().int().nonnegative();

const TokenSecretRef = z.object({
  name: ObjectName.describe('A Secret of the same namespace.'),
  key: z
    .string()
    .min(1)
    .max(253)
    .default('token')
    .describe(
      'The key of the Secret that holds the token. previous-KEY may hold the one before, for pods that have not read the new one yet.',
    ),
});

const SERVER_NAME = /^([a-z0-9]([-a-z0-9]*[a-z0-9])?\.)*[a-z]([-a-z0-9]*[a-z0-9])?$/;

const Tls = z.object({
  caSecretRef: z
    .object({
      name: ObjectName.describe('A Secret of the same namespace.'),
      key: z
        .string()
        .min(1)
        .max(253)
        .default('ca.crt')
        .describe('The key of the Secret that holds the certificates, in PEM.'),
    })
    .describe("The CA that signs the pods' certificates."),
  clientCertSecretRef: z
    .object({
      name: ObjectName.describe('A Secret of the same namespace, of type kubernetes.io/tls.'),
    })
    .optional()
    .describe('What the operator shows to pods that ask for a certificate. Default: none.'),
  serverName: z
    .string()
    .min(1)
    .max(253)
    .regex(SERVER_NAME)
    .describe(
      "A DNS name that the certificate of every pod must be for. Pods are called by their addresses, which are in nobody's certificate.",
    ),
});

const Admin = z.object({
  port: z
    .number()
    .int()
    .min(1)
    .max(65535)
    .default(8001)
    .describe('The port of the admin API, the same on all pods.'),
  auth: z
    .object({ tokenSecretRef: TokenSecretRef.describe('Where the admin token is.') })
    .describe('How the operator shows the pods that it may.'),
  tls: Tls.optional().describe('Speak TLS with the pods. Default: plain HTTP.'),
});

const Limits = z.object({
  maxRank: z
    .number()
    .int()
    .min(1)
    .max(4096)
    .optional()
    .describe('The largest rank that an adapter may have.'),
  maxAdapterBytes: Quantity.optional().describe('The largest safetensors file that an adapter may have.'),
});

const TENANCY_RULES = [
  {
    rule: "has(self.selector) == (self.from == 'Selector')",
    message: 'selector must be set where from is Selector, and nowhere else',
  },
];

const Quota = z.object({
  adapters: z.number().int().min(1).max(100_000).optional().describe('LoraAdapters.'),
  bytes: Quantity.optional().describe('Sizes of the revisions that pods should serve, each counted once.'),
  pushesPerMinute: z.number().int().min(1).max(6_000).optional().describe('Pushes that begin in any minute.'),
});
export type TenantQuota = z.infer<typeof Quota>;

const Tenancy = z.object({
  namespaces: z
    .object({
      from: z
        .enum(['Same', 'All', 'Selector'])
        .default('Same')
        .describe(
          'Same: only the namespace of the pool. All: every namespace. Selector: those too whose labels match selector.',
        ),
      selector: LabelSelector.optional().describe('The labels of namespaces, where from is Selector.'),
    })
    .meta({ 'x-kubernetes-validations': TENANCY_RULES })
    .optional()
    .describe('Whose LoraAdapters may name this pool.'),
  quota: Quota.optional().describe('What each namespace may have in the pool at most, its own included.'),
});

export const ServerPoolSpec = z
  .object({
    selector: LabelSelector.describe('The pods of the pool, all in its namespace.').meta({
      'x-kubernetes-validations': [
        {
          rule: '(has(self.matchLabels) && size(self.matchLabels) > 0) || (has(self.matchExpressions) && size(self.matchExpressions) > 0)',
          message: 'an empty selector would take every pod of the namespace: name a label',
        },
      ],
    }),
    baseModel: z
      .object({
        name: z.string().min(1).max(256).describe('The name that the pods report.'),
        digest: z
          .string()
          .max(71)
          .regex(DIGEST_PATTERN)
          .optional()
          .describe('The digest that the pods must report. Default: any, but the same on all pods.'),
      })
      .describe('What the pods serve; a pod with another base model is left alone and named in status.'),
    admin: Admin.describe('How the operator reaches the pods.'),
    limits: Limits.prefault({}).describe('Narrower limits than the pods report; wider ones have no effect.'),
    tenancy: Tenancy.optional().describe('Who may use the pool. Default: its own namespace.'),
    unmanaged: z
      .enum(['Report', 'Prune'])
      .default('Report')
      .describe(
        'What happens to adapters in a pod that no LoraAdapter owns: they are named in status, or removed.',
      ),
  })
  .describe('What should be.');
export type ServerPoolSpec = z.output<typeof ServerPoolSpec>;

const Usage = z.object({
  total: Count.describe('What there is on all pods together.'),
  used: Count.describe('What is taken.'),
});

const Unmanaged = z.object({
  pod: ObjectName.describe('The pod.'),
  name: z.string().max(NAME_LENGTH_MAX).describe('The served name.'),
});

export const ServerPoolStatus = z
  .object({
    observedGeneration: ObservedGeneration.optional().describe(
      'The metadata.generation that this status is about; -1: none yet.',
    ),
    conditions: Conditions.optional().describe(
      'How the pool is. Where Ready is not True, Reconciling or Stalled is there too.',
    ),
    pods: Count.optional().describe('Pods that match the selector.'),
    readyPods: Count.optional().describe('Of these, pods that answer and have the base model of the pool.'),
    podsSummary: z.string().max(32).optional().describe('readyPods/pods, for kubectl get.'),
    slots: Usage.optional().describe('Adapters that can be resident at the same time.'),
    hostBytes: Usage.optional().describe('Host memory for adapters.'),
    adapters: Count.optional().describe('LoraAdapters of the pool.'),
    podErrors: z
      .array(PodError)
      .max(POD_ERRORS_MAX)
      .optional()
      .describe('Pods that cannot be used, worst first.'),
    unmanaged: z
      .array(Unmanaged)
      .max(UNMANAGED_MAX)
      .optional()
      .describe('Adapters in pods that no LoraAdapter owns, where spec.unmanaged is Report.'),
  })
  .describe('What is.');
export type ServerPoolStatus = Omit<z.infer<typeof ServerPoolStatus>, 'conditions'> & {
  conditions?: Condition<PoolConditionType>[];
};

export interface ServerPool extends KubeObject {
  spec: ServerPoolSpec;
  status?: ServerPoolStatus;
}
