import { z } from 'zod';

export const MESSAGE_LENGTH_MAX = 256;

/** Why Ready is not True, for what reads no reasons: see progress.ts. */
const PROGRESS_CONDITIONS = ['Reconciling', 'Stalled'] as const;
export const ADAPTER_CONDITIONS = [
  'SourceResolved',
  'Verified',
  'Placed',
  'Loaded',
  'Ready',
  ...PROGRESS_CONDITIONS,
] as const;
export const POOL_CONDITIONS = ['Ready', 'CapacityPressure', ...PROGRESS_CONDITIONS] as const;
export type ProgressType = (typeof PROGRESS_CONDITIONS)[number];
export type AdapterConditionType = (typeof ADAPTER_CONDITIONS)[number];
export type PoolConditionType = (typeof POOL_CONDITIONS)[number];
export type ConditionType = AdapterConditionType | PoolConditionType;

/**
 * Every reason a condition can carry, with the sentence that explains it. Reasons are stable: decide on them, never on
 * messages. The sentence is the message where the controller has nothing more exact to say.
 */
export const REASONS = {
  // Any condition
  Pending:
    'An earlier condition is not met yet: SourceResolved, Placed, Verified and Loaded are met in this order.',
  Suspended: 'The spec says suspend: what is loaded stays, nothing changes.',
  InternalError: 'The operator failed in a way that it should not; its log says how. It tries again.',
  // SourceResolved
  Resolved: 'The source names one revision.',
  WaitingForPush: 'No trainer has pushed a revision yet.',
  RevisionNotKept:
    'No pod and no spool has the revision that spec.update.revision names; what is served stays.',
  RevisionLost: 'No pod and no spool holds the pushed revision any more: push again.',
  SourceNotFound: 'There is no adapter where the source points.',
  SourceAccessDenied: 'The store refuses the credentials.',
  SourceUnreachable: 'The store does not answer; the operator tries again.',
  SourceChanged: 'The store changed the adapter while it was read; the operator tries again.',
  SourceInvalid: 'The source cannot be used as it is written.',
  CredentialsNotFound: 'The Secret of the source, or a key of it, does not exist.',
  CredentialsForbidden: 'No Role lets the operator read the Secret of the source.',
  // Verified
  Verified: 'The adapter is well formed and is what spec.verify expects.',
  AdapterMalformed: 'The tensors or the configuration cannot be read.',
  AdapterUnsupported: 'The adapter uses a feature that the server does not have.',
  AdapterIncompatible: 'The tensors do not fit the base model of the pool.',
  AdapterTooLarge: 'The adapter is larger than the pool or the source allows.',
  RankTooLarge: 'The rank is larger than the pool allows.',
  DigestMismatch: 'The content is not what spec.verify.sha256, or a digest in spec.source, names.',
  RankMismatch: 'The rank is not what spec.verify.rank names.',
  TargetModulesMismatch: 'The modules are not what spec.verify.targetModules names.',
  // Placed
  Placed: 'Every pod that should hold the adapter is known.',
  NotPermitted:
    'No ServerPool of that namespace and name takes adapters of this namespace: see its spec.tenancy.',
  PoolNotFound: 'There is no ServerPool of the name in spec.poolRef.',
  QuotaExceeded: 'The namespace has all that spec.tenancy.quota of the pool gives to each.',
  ServedNameTaken: 'An older adapter of the pool has the same served name.',
  ServedNameInvalid: 'The served name is not one that a client could ask for.',
  NoPods: 'The pool has no pod that could hold the adapter.',
  NoRoom: 'Too few pods have host memory left for the adapter.',
  NoReplicas: 'The spec asks for no pod: spec.placement.replicas is 0.',
  NoCapacity: 'A pod has neither a free slot nor host memory for the adapter.',
  // Loaded
  Loaded: 'Every desired pod has confirmed the desired revision.',
  Loading: 'The revision is on its way to the pods.',
  PodsFailed: 'Some pods refused the revision; status.podErrors names them.',
  PodsUnreachable: 'Some pods do not answer; status.podErrors names them.',
  // Ready, of an adapter and of a pool
  Ready: 'Every desired pod serves the desired revision.',
  NotLoaded: 'Some desired pod does not serve the desired revision yet.',
  Draining: 'The adapter leaves the pods when running requests have finished with it.',
  RemovalBlocked:
    'A pod that may still hold the adapter does not answer; the finalizer stays until a deadline.',
  PodsReady: 'Every pod of the pool answers and has the base model of the pool.',
  NoPodsMatch: 'No pod of the namespace matches spec.selector.',
  PodsNotReady: 'Some pods of the pool do not answer yet; status.podErrors names them.',
  BaseModelMismatch: 'Some pods have another base model than the pool names and are left alone.',
  PodsOwnedElsewhere:
    'Some pods that match spec.selector belong to an older ServerPool that selects them too.',
  PodsHeldBack: 'Some pods cannot hold an adapter that other pods of the pool serve, and get no requests.',
  TenancyUnavailable:
    'The operator watches one namespace only: spec.tenancy can let in no other than that of the pool.',
  TokenNotFound: 'The Secret of the admin token, or its key, does not exist or is hidden by RBAC.',
  // CapacityPressure
  Sufficient: 'The pods have room for more adapters.',
  AdaptersDoNotFit: 'Too few pods have host memory left for some adapters of the pool.',
  SlotsFull: 'A pod has no free slot: adapters take turns from host memory.',
  HostMemoryFull: 'A pod has less than a tenth of its host memory for adapters left.',
} as const satisfies Record<string, string>;

export type Reason = keyof typeof REASONS;

/** Type and reason are no enumerations here: an operator newer than the CRD must still be able to write its status. */
const ConditionSchema = z.object({
  type: z.string().max(64).describe('What the condition is about.'),
  status: z.enum(['True', 'False', 'Unknown']).describe('Whether it holds.'),
  reason: z.string().min(1).max(64).describe('Why, as one word of a fixed list: decide on this one.'),
  message: z.string().max(MESSAGE_LENGTH_MAX).describe('Why, for people.'),
  lastTransitionTime: z.iso.datetime().describe('When status last changed.'),
  observedGeneration: z.number().int().nonnegative().describe('The metadata.generation that was looked at.'),
});

export const ObservedGeneration = z.number().int().min(-1);

export const Conditions = z
  .array(ConditionSchema)
  .max(16)
  .meta({ 'x-kubernetes-list-type': 'map', 'x-kubernetes-list-map-keys': ['type'] });

export interface Condition<T extends ConditionType = ConditionType> {
  type: T;
  status: 'True' | 'False' | 'Unknown';
  /** A Reason where this version of the operator wrote it. */
  reason: string;
  message: string;
  lastTransitionTime: string;
  observedGeneration: number;
}

/** What is to be said of a condition. */
export interface Verdict {
  status: Condition['status'];
  reason: Reason;
  /** Default: the sentence of the reason. */
  message?: string;
}

export interface ConditionUpdate<T extends ConditionType> extends Verdict {
  type: T;
  observedGeneration: number;
  now: Date;
}

/** A new list: the condition is replaced in its place or added; lastTransitionTime moves only when status does. */
export function setCondition<T extends ConditionType>(
  conditions: readonly Condition<T>[],
  update: ConditionUpdate<T>,
): Condition<T>[] {
  const { type, status, reason, observedGeneration, now } = update;
  const previous = conditions.find((condition) => condition.type === type);
  const message = truncateMessage(update.message ?? REASONS[reason]);
  const lastTransitionTime =
    previous?.status === status ? previous.lastTransitionTime : now.toISOString().replace(/\.\d+Z$/, 'Z');
  const next: Condition<T> = { type, status, reason, message, lastTransitionTime, observedGeneration };
  return previous ? conditions.map((item) => (item === previous ? next : item)) : [...conditions, next];
}

/** Whether a status said Ready and the one after it does not. */
export function isNoLongerReady(before: unknown, after: unknown): boolean {
  const isReady = (status: unknown) => {
    const { conditions } = (status ?? {}) as { conditions?: Condition[] };
    return findCondition(conditions, 'Ready')?.status === 'True';
  };
  return isReady(before) && !isReady(after);
}

export function findCondition<T extends ConditionType>(
  conditions: readonly Condition<T>[] | undefined,
  type: T,
): Condition<T> | undefined {
  return conditions?.find((condition) => condition.type === type);
}

/** At most MESSAGE_LENGTH_MAX characters, cut with an ellipsis and never inside a surrogate pair. */
export function truncateMessage(message: string): string {
  if (message.length <= MESSAGE_LENGTH_MAX) return message;
  return `${message.slice(0, MESSAGE_LENGTH_MAX - 1).replace(/[\uD800-\uDBFF]$/, '')}…`;
}
