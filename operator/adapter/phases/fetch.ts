import { bytesText } from '../../pods/words.ts';
import type { Fetched } from '../../source/types.ts';
import type { AdapterDeps } from '../deps.ts';
import { intentOf, refreshedOf, refreshOf, revisionOf, timestamp } from '../desired.ts';
import { type Draft, type Phase, type PhaseOutcome, STOP } from '../draft.ts';
import { verdictOf } from '../failures.ts';
import { schedulePoll } from '../poll.ts';
import type { AdapterRecord } from '../record.ts';
import { standingFailure } from '../standing.ts';
import { askSource } from './resolve.ts';

/** Brings what the source names into the spool, checked against the base model and spec.verify before a pod sees it. */
export const fetch: Phase = {
  condition: 'Verified',
  whenSuspended: false,
  async run(draft, deps, signal) {
    const { record, adapter, placement } = draft;
    const { resolved } = record.source;
    if (resolved === null) {
      const failure = standingFailure(draft);
      if (failure !== null && failure.sourceVersion !== null) throw failure.error;
    } else if (placement.fit === null) {
      const message = 'No pod has reported its base model yet.';
      return { verdict: { status: 'Unknown', reason: 'Pending', message }, next: record.target !== null };
    } else {
      const { sourceVersion } = resolved;
      const question = { phase: 'fetch', sourceVersion, signal } as const;
      const order = { sourceVersion, limits: placement, spool: deps.spool };
      const fetched = await askSource(draft, deps, question, (source, life) =>
        source.fetch(adapter, order, life),
      );
      if (fetched === null) {
        const message = `${sourceVersion} is being fetched.`;
        return { verdict: { status: 'Unknown', reason: 'Pending', message }, next: record.target !== null };
      }
      await settle(draft, deps, fetched);
    }
    await noteRefreshed(draft, deps);
    return verified(record);
  },
};

function verified(record: AdapterRecord): PhaseOutcome {
  const { desired } = record;
  if (desired === null) return STOP;
  const refusal = record.refusalOf(desired.digest);
  if (refusal !== null) return { verdict: verdictOf(refusal), next: true };
  const modules = desired.targetModules.join(', ');
  const message = `${desired.short}: rank ${desired.rank}, ${bytesText(desired.bytes)}, ${modules}`;
  return { verdict: { status: 'True', reason: 'Verified', message }, next: true };
}

async function settle(draft: Draft, deps: AdapterDeps, fetched: Fetched): Promise<void> {
  const { record, adapter, key } = draft;
  const { digest, bytes, sourceVersion, shape } = fetched;
  const isNew = record.desired?.digest !== digest;
  const { rank, targetModules } = shape ?? { rank: 0, targetModules: [] };
  const at = (isNew ? null : record.desired?.at) ?? timestamp(deps.clock.date());
  const revision = revisionOf({ digest, step: null, bytes, rank, targetModules, sourceVersion }, at);
  const keep = adapter.spec.update.keepRevisions;
  await deps.mutexes.run(key, async (lock) => record.adopt(lock, revision, { keep, spool: deps.spool }));
  record.settle(intentOf(adapter));
  schedulePoll(draft, deps);
  if (!isNew) return;
  const about = { adapter: key, revision: revision.short, bytes, rank, sourceVersion };
  deps.log.info(about, 'fetched');
  const words = `${revision.short}: rank ${rank}, ${bytesText(bytes)}`;
  deps.events.event(adapter, 'Normal', 'Fetched', words);
}

/** Only once status tells what was found: where an operator ends before that, the next one asks the source again. */
async function noteRefreshed({ record, adapter }: Draft, deps: AdapterDeps): Promise<void> {
  const refresh = refreshOf(adapter);
  const isNoted = refresh === null || refresh === refreshedOf(adapter);
  if (isNoted || record.source.settledFor !== intentOf(adapter)) return;
  const { desired } = record;
  const told = adapter.status?.desiredRevision;
  if (told === undefined || told.digest !== desired?.digest || told.sourceVersion !== desired.sourceVersion)
    return;
  await deps.objects.noteRefreshed(adapter, refresh);
}
