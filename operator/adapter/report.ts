import { findCondition } from '../api/conditions.ts';
import type { LoraAdapterStatus } from '../api/lora-adapter.ts';
import { conclude, isServedBy } from './conclude.ts';
import type { AdapterDeps } from './deps.ts';
import { type Draft, lookAgain, type Verdicts } from './draft.ts';
import { isBeingAnswered } from './errand.ts';
import { rowsOf } from './rows.ts';

/** Writes down what is, and tells people. */
export async function report(draft: Draft, deps: AdapterDeps, verdicts: Verdicts): Promise<void> {
  const { record, adapter, key } = draft;
  await deps.mutexes.run(key, async (lock) => {
    const { status: placed, reason } = verdicts.Placed ?? {};
    const isPlaced = placed === 'True' || (reason === 'NoRoom' && draft.placement.desired.length > 0);
    const rows = isPlaced ? rowsOf(draft, deps) : [];
    if (isServedBy(rows, draft)) record.confirm(lock);
    // What a slow source may give some day is not to be had now.
    if (!isBeingAnswered(draft)) record.decide(isPlaced && draft.askedMs === null);
    const { clock, pushUrl } = deps;
    const status = conclude(draft, { verdicts, rows, pushUrl, now: clock.date() });
    announce(draft, deps, status);
    deps.status.write(adapter, status);
    for (const { pod, action, attempt, confirmed } of rows) {
      if (confirmed) lookAgain(draft, confirmed.untilMs - clock.monotonicMs());
      else record.endAwait(pod.uid);
      // It may have come due meanwhile, as another pod took long.
      const isTriedAgain = action === 'backoff' || action === 'stage' || action === 'activate';
      if (isTriedAgain && attempt) lookAgain(draft, attempt.retryAtMs - clock.monotonicMs());
    }
  });
}

/** Tells people, once, when the adapter became ready or why it is not. */
function announce({ record, adapter, key }: Draft, deps: AdapterDeps, concluded: LoraAdapterStatus): void {
  const ready = findCondition(concluded.conditions, 'Ready');
  if (ready === undefined) return;
  const { status, reason, message } = ready;
  const before = record.tell({ status, reason }) ?? findCondition(adapter.status?.conditions, 'Ready');
  if (before?.status === status && before.reason === reason) return;
  if (status === 'True') {
    deps.log.info({ adapter: key, revision: record.desired?.short, pods: concluded.pods?.desired }, 'ready');
    deps.events.event(adapter, 'Normal', reason, message);
    return;
  }
  if (reason === 'Pending' || reason === 'Loading' || reason === 'NotLoaded') return;
  if (reason === 'WaitingForPush') {
    deps.log.info({ adapter: key }, 'waiting for the first push');
    const where = concluded.pushURL ?? 'the push endpoint';
    deps.events.event(adapter, 'Normal', reason, `PUT safetensors to ${where}`);
    return;
  }
  deps.log.warn({ adapter: key, code: reason, reason: message }, 'not ready');
  deps.events.event(adapter, 'Warning', reason, message);
}
