import {
  type Condition,
  type ConditionType,
  findCondition,
  type ProgressType,
  setCondition,
  type Verdict,
} from './conditions.ts';

interface ProgressUpdate {
  /** Nothing more happens until somebody changes something. */
  isStalled: boolean;
  observedGeneration: number;
  now: Date;
}

/**
 * A new list that says to kstatus, and so to Flux and kpt, why Ready is not True: by Stalled or by Reconciling, with the
 * reason of Ready. As kstatus wants it each is present only while it is true.
 */
export function setProgress<T extends ConditionType>(
  conditions: readonly Condition<T>[],
  { isStalled, ...at }: ProgressUpdate,
): Condition<T | ProgressType>[] {
  const ready = findCondition<ConditionType>(conditions, 'Ready');
  const waits: ProgressType = isStalled ? 'Stalled' : 'Reconciling';
  const type = ready === undefined || ready.status === 'True' ? null : waits;
  const kept: Condition<T | ProgressType>[] = conditions.filter(
    (condition) => condition.type === type || !isProgress(condition.type),
  );
  if (ready === undefined || type === null) return kept;
  const reason = ready.reason as Verdict['reason'];
  return setCondition(kept, { type, status: 'True', reason, message: ready.message, ...at });
}

function isProgress(type: ConditionType): boolean {
  return type === 'Reconciling' || type === 'Stalled';
}
