import type { LoraAdapterStatus, RevisionRecord } from '../api/lora-adapter.ts';
import type { Failure } from './failures.ts';
import type { Attempt } from './plan.ts';

/** What one process knows of one adapter beyond its object and its pods. Everything in it can be found out again. */
export interface AdapterRecord {
  uid: string;
  /** Of the fence: a new one with each change of what pods should serve. */
  sequence: number;
  /** What pods should serve, unless pods refuse it. */
  desired: RevisionRecord | null;
  /** The newest that every desired pod has confirmed. */
  current: RevisionRecord | null;
  /** Desired before, newest first. */
  previous: RevisionRecord[];
  /** True once `desired` says all that status and pods can tell. */
  recovered: boolean;
  /** Source, expectations and refresh that `desired` came from; null: to be resolved. */
  settledFor: string | null;
  /** What the source said, while nothing has been fetched for it yet. */
  resolved: { settledFor: string; sourceVersion: string } | null;
  sourceFailure: SourceFailure | null;
  /** Of the last push, for a push without one. */
  config: unknown | null;
  /** By pod uid. */
  attempts: Map<string, Attempt>;
  /** Digests that some pod refused for what they are, with its words; the newest last. */
  refused: Map<string, Failure>;
  /** A digest whose bytes nobody has any more. */
  lost: string | null;
  lastSwap: LoraAdapterStatus['lastSwap'] | null;
  /** False until a reconcile has decided what pods should have, nothing included: new pods wait for that. */
  decided: boolean;
  /** The Ready condition that people have been told of. */
  announced: { status: string; reason: string } | null;
  /** Monotonic; events of a stream of pushes are thinned out. */
  activatedEventAtMs: number;
}

export interface SourceFailure {
  settledFor: string;
  sourceVersion: string | null;
  error: unknown;
  failures: number;
  retryAtMs: number;
}

const REFUSED_MAX = 8;

/** By `namespace/name`; an object that was made again under one name starts anew. */
export class Records {
  readonly #records = new Map<string, AdapterRecord>();
  #sequence = 0;

  /** One count for all adapters: an object made again under one name must not go back in what its pods have seen. */
  nextSequence(): number {
    this.#sequence += 1;
    return this.#sequence;
  }

  of(key: string, uid: string): AdapterRecord {
    const known = this.#records.get(key);
    if (known?.uid === uid) return known;
    const record: AdapterRecord = {
      uid,
      sequence: this.nextSequence(),
      desired: null,
      current: null,
      previous: [],
      recovered: false,
      settledFor: null,
      resolved: null,
      sourceFailure: null,
      config: null,
      attempts: new Map(),
      refused: new Map(),
      lost: null,
      lastSwap: null,
      decided: false,
      announced: null,
      activatedEventAtMs: Number.NEGATIVE_INFINITY,
    };
    this.#records.set(key, record);
    return record;
  }

  get(key: string): AdapterRecord | undefined {
    return this.#records.get(key);
  }

  forget(key: string): AdapterRecord | undefined {
    const record = this.#records.get(key);
    this.#records.delete(key);
    return record;
  }
}

export function noteRefusal(record: AdapterRecord, digest: string, failure: Failure): void {
  record.refused.set(digest, failure);
  const [oldest] = record.refused.keys();
  if (record.refused.size > REFUSED_MAX && oldest !== undefined) record.refused.delete(oldest);
}

/**
 * The revision to bring to pods: the desired one, but where pods refused that for what it is, the last good one. So a
 * pod that restarts while a bad revision is desired gets what the others still serve.
 */
export function targetOf(record: AdapterRecord): RevisionRecord | null {
  const { desired, current, refused } = record;
  if (desired !== null && refused.has(desired.digest) && current !== null) return current;
  return desired;
}
