import type { Lock } from '../../../server/transfer/serial.ts';
import { type Condition, findCondition } from '../../api/conditions.ts';
import { podsSummary } from '../../api/lora-adapter.ts';
import { podsText } from '../../pods/words.ts';
import type { AdapterDeps } from '../deps.ts';
import { intentOf } from '../desired.ts';
import { conditionOf, type Draft, lookAgain, mark, rowsOf } from '../draft.ts';
import { failureOf } from '../failures.ts';
import { adapterIn, observe, type Row, revisionIn } from '../plan.ts';
import { loadedVerdict, podErrorsOf, type Verdict } from '../status.ts';

const BEFORE_READY = ['SourceResolved', 'Placed', 'Verified', 'Loaded'] as const;
/** A name that cannot be had matters more than that nobody has pushed to it. */
const BEFORE_READY_PUSHED = ['Placed', 'SourceResolved', 'Verified', 'Loaded'] as const;

/** Writes down what is: only what pods have reported counts. */
export function ready(lock: Lock, draft: Draft, deps: AdapterDeps): void {
  const { record, status } = draft;
  const rows = draft.isPlaced ? rowsOf(draft, deps) : [];
  const observed = rows.map(({ pod }) => observe(pod, draft.servedName, record.desired?.digest ?? null));
  const serving = observed.filter((state) => state === 'current').length;
  const isServing = rows.length > 0 && serving === rows.length;
  if (isServing) record.confirm(lock);
  record.decide(draft.isPlaced);
  markLoaded(draft, deps, rows);
  writeRevisions(draft);
  const staged = observed.filter((state) => state === 'held').length + serving;
  const counts = { desired: rows.length, staged, ready: serving };
  status.pods = { ...counts, summary: podsSummary(counts) };
  status.podErrors = podErrorsOf(rows);
  status.servedName = draft.servedName;
  if (draft.adapter.spec.source.push && deps.pushUrl !== null)
    status.pushURL = pushUrlOf(draft, deps.pushUrl);
  if (record.lastSwap) status.lastSwap = record.lastSwap;
  const verdict = readyVerdict(draft, isServing, rows);
  mark(draft, deps, 'Ready', verdict);
  if (verdict.status === 'True' || isFinal(draft)) status.observedGeneration = draft.generation;
  announce(draft, deps, verdict);
  for (const { action, attempt } of rows) {
    if (action === 'backoff' && attempt) lookAgain(draft, attempt.retryAtMs - deps.clock.monotonicMs());
  }
}

function markLoaded(draft: Draft, deps: AdapterDeps, rows: Row[]): void {
  for (const type of BEFORE_READY) {
    if (!conditionOf(draft, type)) mark(draft, deps, type, { status: 'Unknown', reason: 'Pending' });
  }
  if (rows.length === 0 || draft.record.target === null) {
    mark(draft, deps, 'Loaded', { status: 'Unknown', reason: 'Pending' });
    return;
  }
  const verdict = loadedVerdict(rows);
  const { loadFailure } = draft;
  if (loadFailure && verdict.reason === 'Loading') {
    mark(draft, deps, 'Loaded', {
      status: 'False',
      reason: loadFailure.reason,
      message: loadFailure.message,
    });
  } else mark(draft, deps, 'Loaded', verdict);
}

function readyVerdict(draft: Draft, isServing: boolean, rows: Row[]): Verdict {
  const { record, adapter, servedName } = draft;
  const serves = `${servedName} serves ${record.desired?.short} on ${podsText(rows.length)}`;
  if (adapter.spec.suspend) {
    const message = isServing ? `Suspended; ${serves}.` : 'Suspended: what is loaded stays, nothing changes.';
    return { status: isServing ? 'True' : 'False', reason: 'Suspended', message };
  }
  const order = adapter.spec.source.push ? BEFORE_READY_PUSHED : BEFORE_READY;
  const failing = order.map((type) => conditionOf(draft, type)).find((item) => item?.status !== 'True');
  if (failing) return notReady(draft, failing, rows);
  return isServing
    ? { status: 'True', reason: 'Ready', message: `${serves}.` }
    : { status: 'False', reason: 'NotLoaded' };
}

function notReady(draft: Draft, failing: Condition, rows: Row[]): Verdict {
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

function writeRevisions({ record, status, placement, adapter, servedName }: Draft): void {
  const { desired, current, previous } = record;
  if (desired) status.desiredRevision = desired;
  if (current) status.currentRevision = current;
  const reporting = placement.desired.filter((pod) => pod.state !== null);
  const kept = previous.filter(
    ({ digest }) =>
      digest !== desired?.digest &&
      (reporting.length === 0 || reporting.some((pod) => revisionIn(pod.state, servedName, digest))),
  );
  status.previousRevisions = kept.slice(0, adapter.spec.update.keepRevisions);
}

/** Nothing more will happen for this generation until somebody changes something. */
function isFinal({ record, adapter }: Draft): boolean {
  const { desired, source } = record;
  if (adapter.spec.suspend) return true;
  if (desired !== null && record.refusalOf(desired.digest) !== null) return true;
  return source.failure?.intent === intentOf(adapter) && failureOf(source.failure.error).terminal;
}

function pushUrlOf({ adapter }: Draft, base: string): string {
  const { namespace, name } = adapter.metadata;
  return `${base.replace(/\/+$/, '')}/v1/namespaces/${namespace}/adapters/${name}/revisions`;
}

/** Tells people, once, when the adapter became ready or why it is not. */
function announce(draft: Draft, deps: AdapterDeps, verdict: Verdict): void {
  const { record, adapter, key } = draft;
  const { status, reason, message = '' } = verdict;
  const before = record.tell({ status, reason }) ?? findCondition(adapter.status?.conditions, 'Ready');
  if (before?.status === status && before.reason === reason) return;
  if (status === 'True') {
    deps.log.info(
      { adapter: key, revision: record.desired?.short, pods: draft.status.pods?.desired },
      'ready',
    );
    deps.events.event(adapter, 'Normal', reason, message);
    return;
  }
  if (reason === 'Pending' || reason === 'Loading' || reason === 'NotLoaded') return;
  if (reason === 'WaitingForPush') {
    deps.log.info({ adapter: key }, 'waiting for the first push');
    deps.events.event(
      adapter,
      'Normal',
      reason,
      `PUT safetensors to ${draft.status.pushURL ?? 'the push endpoint'}`,
    );
    return;
  }
  deps.log.warn({ adapter: key, code: reason, reason: message }, 'not ready');
  deps.events.event(adapter, 'Warning', reason, message);
}
