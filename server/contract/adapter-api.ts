/**
 * The admin API of a server pod: the pod serves it, the operator calls it.
 * Both sides parse what they receive with these schemas. Objects are open: a newer side may add fields.
 *
 *   GET    /lora/v1/state                                    → PodState
 *   GET    /lora/v1/watch                                    → text/event-stream, each event a PodState, the first at once
 *   PUT    /lora/v1/adapters/{name}/revisions/{digest}       body safetensors → StageReply
 *   POST   /lora/v1/adapters/{name}/revisions                the same when the digest is not known before the last byte
 *          with HEADER.relay                                 the pod passes the body on as it takes it in; all answers in `relayed`
 *   GET    /lora/v1/adapters/{name}/revisions/{digest}       → the safetensors bytes, config in HEADER.config
 *   POST   /lora/v1/adapters/{name}/activate                 ActivateRequest → ActivateReply
 *   POST   /lora/v1/adapters/{name}/rollback                 RollbackRequest → ActivateReply
 *   DELETE /lora/v1/adapters/{name}[/revisions/{digest}]     → RemoveReply, 202 while leases > 0
 *   POST   /lora/v1/seeded                                   → 204; the pod holds all that it should: it may be ready
 *   PUT    /v1/adapters/{name}                               stage + activate → PutAdapterReply
 *
 * Whoever watches with HEADER.watch `changes` may be sent `event: changes` with a PodChanges instead, against what the
 * event before it left. Each event has an `id`, for a later watch's Last-Event-ID: that goes on with what changed since,
 * or with the whole state where the pod has forgotten that, or is another process. A whole state is right at any time.
 *
 * Names and digests are percent-encoded: the slash of `org/sql` is `%2F`.
 * Every call carries `Authorization: Bearer <admin token>`; those of the operator that change something
 * also carry HEADER.fence.
 */
import { z } from 'zod';

export const HEADER = {
  /** base64url of adapter_config.json; else `__metadata__.adapter_config` of the safetensors header is taken. */
  config: 'x-lora-config',
  /** The trainer's step, a whole number. */
  step: 'x-lora-step',
  /** `<lease transitions>.<sequence>`: see Fence. */
  fence: 'x-lora-fence',
  /** Of a PUT of an adapter: InFlight. */
  inFlight: 'x-lora-in-flight',
  /** Of an upload: admin addresses of the pods that are to have it after this one, in order, with commas between. */
  relay: 'x-lora-relay',
  /** Comma-separated checks to waive: `zero_effect`. */
  allow: 'x-lora-allow',
  /** Of a request to the serving API: `revision=<first digits of the digest>` or `min_step=<n>`. */
  expect: 'x-lora-expect',
  /** How long such a request waits for that revision, in milliseconds. */
  waitMs: 'x-lora-wait-ms',
  /** Of a watch: `changes` where it takes them. */
  watch: 'x-lora-watch',
  contentDigest: 'content-digest',
} as const;

export const MEDIA_TYPE = 'application/octet-stream';

export const DIGEST_PATTERN = /^sha256:[0-9a-f]{64}$/;
/**
 * A served name, as clients write models: `sql`, `org/Llama-3.1-8B-sql`, `base:sql`, `policy@5`. A longer number after `@`
 * would be the digits of a digest, which pins a revision.
 */
export const NAME_PATTERN =
  /^[A-Za-z0-9]([A-Za-z0-9._:-]*[A-Za-z0-9])?(\/[A-Za-z0-9]([A-Za-z0-9._:-]*[A-Za-z0-9])?)*(@(\d{1,5}|v\d{1,15}))?$/;
export const NAME_LENGTH_MAX = 256;
export const SAFETENSORS_HEADER_BYTES_MAX = 1 << 20;
/** Of HEADER.relay, which has room in the 32 KiB of headers beside a config. */
export const RELAY_PODS_MAX = 128;

export const Digest = z.string().regex(DIGEST_PATTERN);
export const AdapterName = z.string().max(NAME_LENGTH_MAX).regex(NAME_PATTERN);
export const Step = z.number().int().nonnegative().nullable();

/**
 * Orders what operators ask of a pod. `term` is the lease's transition count: a pod refuses any call of a lower term
 * than it has seen. `sequence` grows with each change of what pods should serve: a pod refuses to go back within
 * an adapter.
 */
export const Fence = z.object({
  term: z.number().int().nonnegative(),
  sequence: z.number().int().nonnegative(),
});
export type Fence = z.infer<typeof Fence>;

/**
 * The term and count under which an operator accepted a revision from a trainer, for which object (its uid). A later
 * operator that brings the revision to more pods has a fence of its own but says the same here: of what two pods hold for
 * one object, the later accepted is the newer.
 */
export const Acceptance = Fence.extend({
  object: z.string().max(128),
  /** Where a rollback made it the desired one: what it came after, and the newest step that a trainer had reached. */
  rollback: z.object({ from: Digest, reachedStep: Step }).optional(),
});
export type Acceptance = z.infer<typeof Acceptance>;

export const RevisionState = z.object({
  digest: Digest,
  step: Step,
  state: z.enum(['staged', 'current', 'retired']),
  /** slot: resident in the engine; host: its bytes are in RAM and are brought in when asked for. */
  tier: z.enum(['slot', 'host']),
  leases: z.number().int(),
  bytes: z.number().int(),
  rank: z.number().int(),
  modules: z.array(z.string()),
});
export type RevisionState = z.infer<typeof RevisionState>;

export const AdapterState = z.object({
  name: AdapterName,
  current: Digest.nullable(),
  /** The fence of the activation that made `current` current; null where no operator did. */
  fence: Fence.nullable(),
  /** What that activation said of `accepted`; null where it said nothing. */
  accepted: Acceptance.nullish(),
  /** Requests for it in a minute, roughly; absent: hardly any, or the pod does not count them. */
  requestsPerMinute: z.number().int().nonnegative().optional(),
  revisions: z.array(RevisionState),
});
export type AdapterState = z.infer<typeof AdapterState>;

/** What an adapter's tensors are checked against: per module, input and output width. */
export const Geometry = z.object({
  layers: z.number().int().positive(),
  modules: z.record(z.string(), z.object({ in: z.number().int(), out: z.number().int() })),
});
export type Geometry = z.infer<typeof Geometry>;

export const PodState = z.object({
  /** New with every process start. */
  bootId: z.string(),
  baseModel: z.object({ name: z.string(), digest: Digest, geometry: Geometry }),
  limits: z.object({
    slots: z.number().int(),
    pages: z.number().int(),
    /** Absent: the pod does not tell. */
    kvBlocks: z.number().int().optional(),
    hostBytes: z.number().int(),
    maxRank: z.number().int(),
    maxAdapterBytes: z.number().int(),
    /** Modules that adapters may adapt, and dtypes of their tensors. */
    modules: z.array(z.string()).default([]),
    dtypes: z.array(z.string()),
  }),
  used: z.object({
    slots: z.number().int(),
    pages: z.number().int(),
    /** Of running sequences, roughly and in the last minute. */
    kvBlocks: z.number().int().optional(),
    hostBytes: z.number().int(),
  }),
  adapters: z.array(AdapterState),
  /** Counts activations and removals. */
  epoch: z.number().int(),
  seeded: z.boolean(),
  /** Passes bodies on to other pods. Absent in pods of before: those that speak plain HTTP do. */
  relays: z.boolean().optional(),
});
export type PodState = z.infer<typeof PodState>;

/** From one PodState of a process to a later one; what is not in it stays as it was. */
export const PodChanges = PodState.pick({ used: true, epoch: true, seeded: true }).extend({
  /** Those that are new or not as they were. */
  adapters: z.array(AdapterState),
  removed: z.array(AdapterName),
});
export type PodChanges = z.infer<typeof PodChanges>;

const Milliseconds = z.number().nonnegative();

export const StageReceipt = z.object({
  modules: z.number().int(),
  targetModules: z.array(z.string()),
  layers: z.array(z.number().int()),
  /** Largest rank of any module. */
  rank: z.number().int(),
  ranks: z.array(z.number().int()),
  dtypes: z.array(z.string()),
  pages: z.number().int(),
  /** Tensors with values that the pod's pages cannot hold exactly: float32 where it computes in bfloat16. */
  rounded: z.number().int().default(0),
  warnings: z.array(z.string()),
  timings: z.object({ receiveMs: Milliseconds, checkMs: Milliseconds, packMs: Milliseconds }),
});
export type StageReceipt = z.infer<typeof StageReceipt>;

/**
 * What became of one pod behind the one that was asked. `failed`: it was sent the bytes and has not taken the revision, or
 * not in time. `skipped`: it was not, or it is not known whether it has it, as a pod before it fell out.
 */
export const RelayedPod = z.object({
  url: z.string(),
  state: z.enum(['staged', 'failed', 'skipped']),
  /** Of one that is staged. */
  revision: Digest.nullable(),
  error: z.object({ code: z.string(), message: z.string() }).nullable(),
});
export type RelayedPod = z.infer<typeof RelayedPod>;

export const StageReply = z.object({
  name: AdapterName,
  revision: Digest,
  step: Step,
  bytes: z.number().int(),
  /** True where the pod held this revision already. */
  existed: z.boolean(),
  report: StageReceipt,
  /** One for each pod of HEADER.relay, in its order; absent without. */
  relayed: z.array(RelayedPod).optional(),
});
export type StageReply = z.infer<typeof StageReply>;

/**
 * What becomes of running requests that leave it to the activation: they finish on the revision that they have, or
 * migrate to the new one between two steps.
 */
export const InFlight = z.enum(['Finish', 'Migrate']);
export type InFlight = z.infer<typeof InFlight>;

export const ActivateRequest = z.object({
  revision: Digest,
  /** Compare-and-swap: the digest that must be current, or null for "none yet". Absent: no check. */
  expectCurrent: Digest.nullable().optional(),
  /** Revisions to keep besides the current one; the others go when their leases do. */
  keep: z.number().int().min(0).max(16).default(2),
  inFlight: InFlight.default('Finish'),
  accepted: Acceptance.optional(),
});
export type ActivateRequest = z.input<typeof ActivateRequest>;

export const ActivateReply = z.object({
  name: AdapterName,
  revision: Digest,
  previous: Digest.nullable(),
  epoch: z.number().int(),
  visibleAtStep: z.number().int(),
  durationMs: Milliseconds,
});
export type ActivateReply = z.infer<typeof ActivateReply>;

export const RollbackRequest = z.object({
  /**
   * A digest or a step that was current and is kept. Absent: the one before the current one; asked again, that stays, as
   * a reply may have been lost.
   */
  to: z.union([Digest, z.number().int().nonnegative()]).optional(),
  /** As of an activation. */
  expectCurrent: Digest.optional(),
  inFlight: InFlight.default('Finish'),
});
export type RollbackRequest = z.input<typeof RollbackRequest>;

export const RemoveReply = z.object({
  name: AdapterName,
  removed: z.array(Digest),
  leases: z.number().int(),
});
export type RemoveReply = z.infer<typeof RemoveReply>;

export const PutAdapterReply = StageReply.extend({
  previous: Digest.nullable(),
  epoch: z.number().int(),
  visibleAtStep: z.number().int(),
});
export type PutAdapterReply = z.infer<typeof PutAdapterReply>;

export const ErrorReply = z.object({
  error: z.object({
    code: z.string(),
    message: z.string(),
    field: z.string().optional(),
    expected: z.unknown().optional(),
    actual: z.unknown().optional(),
  }),
});
export type ErrorReply = z.infer<typeof ErrorReply>;
