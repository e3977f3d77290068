import {
  type AdapterConditionType,
  type Condition,
  findCondition,
  setCondition,
  type Verdict,
} from '../api/conditions.ts';
import { type LoraAdapterStatus, podsSummary, type RevisionRecord } from '../api/lora-adapter.ts';
import { setProgress } from '../api/progress.ts';
import { podsText } from '../pods/words.ts';
import { intentOf } from './desired.ts';
import type { Draft, Verdicts } from './draft.ts';
import { failureOf } from './failures.ts';
import { adapterIn, observe, type Row, revisionIn } from './plan.ts';
import { standingFailure } from './standing.ts';
import { loadedVerdict, podErrorsOf } from './status.ts';

const BEFORE_READY = ['SourceResolved', 'Placed', 'Verified', 'Loaded'] as const;
/** A name that cannot be had matters more than that nobody has pushed to it. */
const BEFORE_READY_PUSHED = ['Placed', 'SourceResolved', 'Verified', 'Loaded'] as const;
const PENDING: Verdict = { status: 'Unknown', reason: 'Pending' };

type Conditions = Condition<AdapterConditionType>[];

export interface Conclusion {
  verdicts: Verdicts;
  /** Of the pods that should hold the adapter. */
  rows: readonly Row[];
  pushUrl: string | null;
  now: Date;
}

/** The status that the verdicts of phases and the reports of pods amount to; only pods say what is served. Pure. */
export function conclude(draft: Draft, { verdicts, rows, pushUrl, now }: Conclusion): LoraAdapterStatus {
  const { record, adapter, servedName } = draft;
  const { desired, current, lastSwap } = record;
  const observedGeneration = adapter.metadata.generation ?? 0;
  const judged = { ...verdicts, Loaded: loadedOf(draft, verdicts, rows) };
  let conditions: Conditions = adapter.status?.conditions ?? [];
  for (const type of BEFORE_READY) {
    const verdict = judged[type] ?? (findCondition(conditions, type) ? null : PENDING);
    if (verdict) conditions = setCondition(conditions, { type, ...verdict, observedGeneration, now });
  }
  const ready = readyVerdict(draft, conditions, rows);
  conditions = setCondition(conditions, { type: 'Ready', ...ready, observedGeneration, now });
  const isStalled = ready.status !== 'True' && isFinal(draft);
  conditions = setProgress(conditions, { isStalled, observedGeneration, now });
  const isApplied = ready.status === 'True' || isStalled;
  const isAdvertised = adapter.spec.source.push !== undefined && pushUrl !== null;
  return {
    ...adapter.status,
    conditions,
    servedName,
    previousRevisions: previousOf(draft),
    pods: countsOf(draft, rows),
    podErrors: podErrorsOf(rows),
    ...(desired && { desiredRevision: desired }),
    ...(current && { currentRevision: current }),
    ...(lastSwap && { lastSwap }),
    ...(isAdvertised && { pushURL: pushUrlOf(draft, pushUrl) }),
    ...(isApplied && { observedGeneration }),
  };
}

/** Whether all of the pods that should serve the desired revision do. */
export function isServedBy(rows: readonly Row[], draft: Draft): boolean {
  return rows.length > 0 && observedIn(rows, draft).every((state) => state === 'current');
}

function observedIn(rows: readonly Row[], { record, servedName }: Draft) {
  return rows.map(({ pod }) => observe(pod, servedName, record.desired?.digest ?? null));
}

function countsOf(draft: Draft, rows: readonly Row[]): LoraAdapterStatus['pods'] {
  const observed = observedIn(rows, draft);
  const ready = observed.filter((state) => state === 'current').length;
  const staged = observed.filter((state) => state === 'held').length + ready;
  const counts = { desired: rows.length, staged, ready };
  return { ...counts, summary: podsSummary(counts) };
}

/** Why a revision could not be brought to any pod is told while pods themselves have nothing to say. */
function loadedOf({ record }: Draft, { Loaded: failed }: Verdicts, rows: readonly Row[]): Verdict {
  if (rows.length === 0 || record.target === null) return PENDING;
  const verdict = loadedVerdict(rows);
  return verdict.reason === 'Loading' ? (failed ?? verdict) : verdict;
}

function readyVerdict(draft: Draft, conditions: Conditions, rows: readonly Row[]): Verdict {
  const { record, adapter, servedName } = draft;
  const isServing = isServedBy(rows, draft);
  const serves = `${servedName} serves ${record.desired?.short} on ${podsText(rows.length)}`;
  if (adapter.spec.suspend) {
    const message = isServing ? `Suspended; ${serves}.` : 'Suspended: what is loaded stays, nothing changes.';
    return { status: isServing ? 'True' : 'False', reason: 'Suspended', message };
  }
  const order = adapter.spec.source.push ? BEFORE_READY_PUSHED : BEFORE_READY;
  // A source that was read once, and cannot be just now when it is polled, takes nothing from what is served.
  const isSettled = record.source.settledFor === intentOf(adapter);
  const failing = order
    .filter((type) => !(isSettled && type === 'SourceResolved'))
    .map((type) => findCondition(conditions, type))
    .find((item) => item?.status !== 'True');
  if (failing) return notReady(draft, failing, rows);
  return isServing
    ? { status: 'True', reason: 'Ready', message: `${serves}.` }
    : { status: 'False', reason: 'NotLoaded' };
}

function notReady(draft: Draft, failing: Condition, rows: readonly Row[]): Verdict {
  const { current, desired } = draft.record;
  const status = failing.status === 'Unknown' ? 'Unknown' : 'False';
  const reason = failing.reason as Verdict['reason'];
  const isRunning = rows.some(
    ({ pod }) => adapterIn(pod.state, draft.servedName)?.current === current?.digest,
  );
  const isOld = failing.type !== 'Loaded' || current?.digest !== desired?.digest;
  if (!current || !isRunning || !isOld) return { status, reason, message: failing.message };
  const suffix = ` (${current.short} keeps serving)`;
  return { status, reason, message: `${failing.message.slice(0, 256 - suffix.length)}${suffix}` };
}

function previousOf({ record, placement, adapter, servedName }: Draft): RevisionRecord[] {
  const reporting = placement.desired.filter((pod) => pod.state !== null);
  const kept = record.previous.filter(
    ({ digest }) =>
      digest !== record.desired?.digest &&
      (reporting.length === 0 || reporting.some((pod) => revisionIn(pod.state, servedName, digest))),
  );
  return kept.slice(0, adapter.spec.update.keepRevisions);
}

/** Nothing more will happen for this generation until somebody changes something. */
function isFinal(draft: Draft): boolean {
  const { record, adapter } = draft;
  const { desired } = record;
  if (adapter.spec.suspend || asksForNone(draft)) return true;
  if (desired !== null && record.refusalOf(desired.digest) !== null) return true;
  const failure = standingFailure(draft);
  return failure !== null && failureOf(failure.error).terminal;
}

function asksForNone({ placement: { members, desired, shortage } }: Draft): boolean {
  return members.length > 0 && desired.length === 0 && shortage === null;
}

function pushUrlOf({ adapter }: Draft, base: string): string {
  const { namespace, name } = adapter.metadata;
  return `${base.replace(/\/+$/, '')}/v1/namespaces/${namespace}/adapters/${name}/revisions`;
}
