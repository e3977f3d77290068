import type { Geometry } from '../../server/contract/adapter-api.ts';
import type { Reason } from '../api/conditions.ts';
import type { LoraAdapter } from '../api/lora-adapter.ts';
import type { Spool } from '../spool/spool.ts';

/** What a source reads of a LoraAdapter. */
export interface SourcedAdapter {
  metadata: Pick<LoraAdapter['metadata'], 'name' | 'namespace'>;
  spec: Pick<LoraAdapter['spec'], 'source' | 'verify'>;
}

export interface SourceState {
  /** Changes whenever the tensors or the config do; all that `fetch` needs to read exactly these. */
  sourceVersion: string;
}

export interface Fetched {
  digest: string;
  config: unknown;
  bytes: number;
  sourceVersion: string;
  /** Of the modules that carry tensors; null where FetchLimits.fit was. */
  shape: { rank: number; targetModules: string[] } | null;
}

export interface Source {
  /** Cheap: says which version is there now, reads no tensors. */
  resolve(adapter: SourcedAdapter, signal: AbortSignal): Promise<SourceState>;
  /** Brings that version, and no other, into the spool. */
  fetch(adapter: SourcedAdapter, order: FetchOrder, signal: AbortSignal): Promise<Fetched>;
}

export interface FetchLimits {
  maxBytes: number;
  /** What the adapter must fit; null where no pod has said yet: then only its form is checked. */
  fit: { geometry: Geometry; maxRank: number } | null;
}

export interface FetchOrder extends SourceState {
  limits: FetchLimits;
  spool: Spool;
}

/** Of what a store answers; what is wrong with the content itself is a LorikeetError. */
export type SourceReason = Extract<
  Reason,
  | 'SourceNotFound'
  | 'SourceAccessDenied'
  | 'CredentialsNotFound'
  | 'CredentialsForbidden'
  | 'SourceChanged'
  | 'SourceUnreachable'
  | 'SourceInvalid'
  | 'InternalError'
  | 'AdapterMalformed'
>;

/** Messages are fixed templates: nothing that an endpoint answers is copied into them. */
export class SourceError extends Error {
  readonly reason: SourceReason;

  constructor(reason: SourceReason, message: string, cause?: unknown) {
    super(message, { cause });
    this.name = new.target.name;
    this.reason = reason;
  }
}

/** May succeed later without anyone changing the spec. */
export class Retryable extends SourceError {
  readonly retryable = true;
}

/** Will fail again until the spec, the Secret or the object changes. */
export class Terminal extends SourceError {
  readonly retryable = false;
}
