import type { Verdict } from '../api/conditions.ts';
import { shortDigest } from '../api/lora-adapter.ts';
import type { AdapterDeps } from './deps.ts';
import { intentOf } from './desired.ts';
import type { Draft } from './draft.ts';
import { acceptedBy } from './publish/commit.ts';
import { keptEarlier } from './publish/earlier.ts';
import { newestStep } from './publish/preconditions.ts';

const FIELD = 'spec.update.revision';

/** Makes the kept revision that the spec names the desired one; null: it names none. */
export async function followPin(draft: Draft, deps: AdapterDeps): Promise<Verdict | null> {
  const { adapter, record, key } = draft;
  const { revision: digest, keepRevisions: keep } = adapter.spec.update;
  if (digest === undefined || adapter.spec.suspend) return null;
  return await deps.mutexes.run(key, async (lock): Promise<Verdict> => {
    const before = record.desired;
    if (before?.digest !== digest) {
      const earlier = keptEarlier(draft, deps.spool);
      const target = earlier.find((revision) => revision.digest === digest);
      if (target === undefined) {
        const kept = earlier.map(({ short }) => short).join(', ') || 'none';
        const message = `${FIELD} names ${shortDigest(digest)}; kept earlier: ${kept}. What is served stays.`;
        return { status: 'False', reason: 'RevisionNotKept', message };
      }
      const from = before?.digest ?? digest;
      const rollback = { from, reachedStep: newestStep(record), by: FIELD };
      const isPushed = adapter.spec.source.push !== undefined;
      const how = isPushed ? { accepted: acceptedBy(deps), rollback } : {};
      record.adopt(lock, { ...target, ...how }, { keep, spool: deps.spool });
      record.keepConfig(deps.spool.open(digest)?.config ?? record.config);
      const words = `${target.short} is desired again instead of ${shortDigest(from)}, as ${FIELD} says`;
      deps.log.info(
        { adapter: key, revision: target.short, from: shortDigest(from), by: FIELD },
        'rolled back',
      );
      deps.events.event(adapter, 'Normal', 'RolledBack', words);
    }
    record.settle(intentOf(adapter));
    return { status: 'True', reason: 'Resolved', message: `${shortDigest(digest)}, as ${FIELD} says` };
  });
}
