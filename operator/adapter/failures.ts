import { type ErrorCode, LorikeetError } from '../../server/contract/errors.ts';
import { PodUnreachable, rootMessage } from '../../server/transfer/unreachable.ts';
import type { Reason, Verdict } from '../api/conditions.ts';
import { Retryable, Terminal } from '../source/types.ts';
import { SpoolError } from '../spool/spool-error.ts';

/** A pushed or pinned revision whose bytes nobody holds any more. */
export class RevisionLost extends Error {
  constructor(message: string, cause?: unknown) {
    super(message, { cause });
    this.name = 'RevisionLost';
  }
}

export interface Failure {
  reason: Reason;
  message: string;
  /** Asking again would not help until somebody changes something. */
  terminal: boolean;
}

export function verdictOf({ reason, message }: Failure): Verdict {
  return { status: 'False', reason, message };
}

/** What an error means as the reason of a condition. The error of a source says its own. */
export function failureOf(error: unknown): Failure {
  switch (true) {
    case error instanceof Terminal:
      return { reason: error.reason, message: error.message, terminal: true };
    case error instanceof Retryable:
      return { reason: error.reason, message: error.message, terminal: false };
    case error instanceof RevisionLost:
      return { reason: 'RevisionLost', message: error.message, terminal: true };
    case error instanceof LorikeetError:
      return {
        reason: reasonOf(error),
        message: error.message,
        terminal: isContentRefusal(error.code),
      };
    case error instanceof PodUnreachable:
      return { reason: 'PodsUnreachable', message: error.message, terminal: false };
    case error instanceof SpoolError:
      return { reason: 'InternalError', message: error.message, terminal: false };
    default:
      return { reason: 'InternalError', message: rootMessage(error), terminal: false };
  }
}

/** Codes which say that the revision itself is wrong, with the reason to show for each. */
const CONTENT_REFUSALS: Partial<Record<ErrorCode, Reason>> = {
  malformed_safetensors: 'AdapterMalformed',
  malformed_config: 'AdapterMalformed',
  missing_config: 'AdapterMalformed',
  non_finite: 'AdapterMalformed',
  unsupported_adapter_feature: 'AdapterUnsupported',
  unsupported_dtype: 'AdapterUnsupported',
  unknown_module: 'AdapterIncompatible',
  unexpected_tensor: 'AdapterIncompatible',
  missing_tensor: 'AdapterIncompatible',
  shape_mismatch: 'AdapterIncompatible',
  no_modules: 'AdapterIncompatible',
  zero_effect: 'AdapterIncompatible',
  rank_mismatch: 'AdapterIncompatible',
  rank_too_large: 'RankTooLarge',
  body_too_large: 'AdapterTooLarge',
  header_too_large: 'AdapterTooLarge',
  invalid_name: 'ServedNameInvalid',
  verification_failed: 'AdapterIncompatible',
};

/** The reason of `verification_failed`, by the field of the spec that wants something else. */
const EXPECTATIONS: Record<string, Reason> = {
  'spec.verify.sha256': 'DigestMismatch',
  'spec.source.http.sha256': 'DigestMismatch',
  'spec.source.http.configSha256': 'DigestMismatch',
  'spec.source.oci.image': 'DigestMismatch',
  'spec.verify.rank': 'RankMismatch',
  'spec.verify.targetModules': 'TargetModulesMismatch',
};

export function isContentRefusal(code: ErrorCode): boolean {
  return CONTENT_REFUSALS[code] !== undefined;
}

function reasonOf({ code, field = '' }: LorikeetError): Reason {
  if (code === 'no_capacity') return 'NoCapacity';
  return EXPECTATIONS[field] ?? CONTENT_REFUSALS[code] ?? 'PodsFailed';
}
