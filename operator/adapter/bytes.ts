import { type LoraAdapter, shortDigest } from '../api/lora-adapter.ts';
import type { Pod } from '../pods/pod.ts';
import { sourceOf } from '../source/index.ts';
import { SourceError, type SourceReason } from '../source/types.ts';
import type { SpooledRevision } from '../spool/spool.ts';
import type { AdapterDeps } from './deps.ts';
import type { Draft } from './draft.ts';
import { RevisionLost } from './failures.ts';
import { observe } from './plan.ts';

/** The pinned content is not there any more, however often one asks. */
const GONE: ReadonlySet<SourceReason> = new Set(['SourceChanged', 'SourceNotFound']);

interface Wanted {
  draft: Draft;
  deps: AdapterDeps;
  digest: string;
  signal: AbortSignal;
}

/** A revision's bytes: from the spool, else from its source, else from a pod that holds it. */
export async function bytesOf(wanted: Wanted): Promise<SpooledRevision> {
  const { draft, deps, digest } = wanted;
  const spooled = deps.spool.open(digest) ?? (await fromSource(wanted));
  if (spooled !== null) return spooled;
  for (const pod of holders(draft, digest)) {
    const copied = await fromPod(wanted, pod);
    if (copied !== null) return copied;
  }
  draft.record.lose(digest);
  throw new RevisionLost(lostMessage(draft.adapter, digest));
}

function lostMessage(adapter: LoraAdapter, digest: string): string {
  const what = `No spool and no pod holds ${shortDigest(digest)} any more`;
  if (adapter.spec.source.push) return `${what}: push again.`;
  return `${what}, and the source has other content now: annotate lorikeet.dev/refresh to roll that out.`;
}

function holders(draft: Draft, digest: string): Pod[] {
  return draft.placement.desired.filter((pod) => {
    const observed = observe(pod, draft.servedName, digest);
    return observed === 'current' || observed === 'held';
  });
}

/** Null where the source is not the place to ask, or no longer has this content. Its outage is not the end either. */
async function fromSource({ draft, deps, digest, signal }: Wanted): Promise<SpooledRevision | null> {
  const source = sourceOf(draft.adapter, deps.sources);
  const target = draft.record.target;
  if (source === null || target?.digest !== digest || target.sourceVersion === undefined) return null;
  try {
    const { sourceVersion } = target;
    const order = { sourceVersion, limits: draft.placement, spool: deps.spool };
    const fetched = await source.fetch(draft.adapter, order, signal);
    return fetched.digest === digest ? deps.spool.open(digest) : null;
  } catch (error) {
    signal.throwIfAborted();
    const isGone = error instanceof SourceError && GONE.has(error.reason);
    if (!isGone && holders(draft, digest).length === 0) throw error;
    deps.log.warn({ adapter: draft.key, err: error }, 'source failed; asking a pod for the bytes');
    return null;
  }
}

async function fromPod({ draft, deps, digest, signal }: Wanted, pod: Pod): Promise<SpooledRevision | null> {
  const writer = deps.spool.begin();
  try {
    const { config, body } = await pod.client.fetch(draft.servedName, digest, signal);
    for await (const chunk of body) await writer.write(chunk);
    await writer.commit(digest, { config, step: draft.record.target?.step ?? null });
    const about = { adapter: draft.key, pod: pod.name, revision: shortDigest(digest) };
    deps.log.info(about, 'bytes copied from a pod');
    return deps.spool.open(digest);
  } catch (error) {
    await writer.abort();
    signal.throwIfAborted();
    deps.log.warn({ adapter: draft.key, pod: pod.name, err: error }, 'a pod could not give the bytes');
    return null;
  }
}
