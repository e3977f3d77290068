import type { Placement } from '../placement/placement.ts';
import { intentOf } from './desired.ts';
import type { Draft } from './draft.ts';
import { failureOf } from './failures.ts';
import type { SourceFailure } from './record.ts';

/** What a revision was held against when it was refused before any pod saw it. */
export function limitsOf({ fit, maxBytes }: Placement): string {
  return JSON.stringify([fit, maxBytes]);
}

/** How the source failed for what the spec says now; content that was refused is not where the limits are others. */
export function standingFailure({ record, adapter, placement }: Draft): SourceFailure | null {
  const { failure } = record.source;
  if (failure === null || failure.intent !== intentOf(adapter)) return null;
  const isRefusal = failure.sourceVersion !== null && failureOf(failure.error).terminal;
  if (!isRefusal || placement.fit === null) return failure;
  return failure.limits === limitsOf(placement) ? failure : null;
}
