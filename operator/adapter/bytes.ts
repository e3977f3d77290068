import { type LoraAdapter, shortDigest } from '../api/lora-adapter.ts';
import type { Pod } from '../pods/pod.ts';
import { archiveOf } from '../source/archive.ts';
import { type SourcedAdapter, SourceError, type SourceReason } from '../source/types.ts';
import type { SpooledRevision } from '../spool/spool.ts';
import type { AdapterDeps } from './deps.ts';
import type { Draft } from './draft.ts';
import { sendErrand } from './errand.ts';
import { RevisionLost } from './failures.ts';
import { observe, revisionIn } from './plan.ts';
import { targetOf } from './rows.ts';

/** The pinned content is not there any more, however often one asks. */
const GONE: ReadonlySet<SourceReason> = new Set(['SourceChanged', 'SourceNotFound']);

interface Wanted {
  draft: Draft;
  deps: AdapterDeps;
  digest: string;
  signal: AbortSignal;
}

/** A revision's bytes: from the spool, else from a pod that holds it, else from source or archive. Null: they are on their way. */
export async function bytesOf(wanted: Wanted): Promise<SpooledRevision | null> {
  const { draft, deps, digest } = wanted;
  const held = await heldBytes(wanted);
  if (held !== null) return held;
  const archive = archiveOf(draft.adapter, digest);
  if (await (archive === null ? isInSource(wanted) : isInArchive(wanted, archive)))
    return deps.spool.open(digest);
  draft.record.lose(digest);
  throw new RevisionLost(lostMessage(draft.adapter, digest));
}

/** From the spool, else from a pod that holds it; null where neither has it. */
export async function heldBytes(wanted: Wanted): Promise<SpooledRevision | null> {
  const { draft, deps, digest } = wanted;
  const spooled = deps.spool.open(digest);
  if (spooled !== null) return spooled;
  for (const pod of holders(draft, digest)) {
    const copied = await fromPod(wanted, pod);
    if (copied !== null) return copied;
  }
  return null;
}

function lostMessage(adapter: LoraAdapter, digest: string): string {
  const what = `No spool and no pod holds ${shortDigest(digest)} any more`;
  if (adapter.spec.source.push) return `${what}: push again.`;
  return `${what}, and the source has other content now: annotate lorikeet.dev/refresh to roll that out.`;
}

function holders(draft: Draft, digest: string): Pod[] {
  return draft.placement.members.filter((pod) => {
    const observed = observe(pod, draft.servedName, digest);
    return observed === 'current' || observed === 'held';
  });
}

/** False where the source is not the place to ask, or no longer has this content. */
async function isInSource({ draft, deps, digest, signal }: Wanted): Promise<boolean> {
  const target = targetOf(draft);
  const isPushed = draft.adapter.spec.source.push !== undefined;
  if (isPushed || target?.digest !== digest || target.sourceVersion === undefined) return false;
  try {
    const { sourceVersion } = target;
    const order = { sourceVersion, limits: draft.placement, spool: deps.spool };
    const question = `${digest} ${sourceVersion}`;
    const asked = { kind: 'bytes', phase: 'fetch', question, signal } as const;
    const fetched = await sendErrand(draft, deps, asked, (source, life) =>
      source.fetch(draft.adapter, order, life),
    );
    return fetched === null || fetched.digest === digest;
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof SourceError && GONE.has(error.reason)) return false;
    throw error;
  }
}

/** True as well where it is on its way. */
async function isInArchive({ draft, deps, digest, signal }: Wanted, from: SourcedAdapter): Promise<boolean> {
  const asked = { kind: 'bytes', phase: 'fetch', question: digest, signal, from } as const;
  try {
    const fetched = await sendErrand(draft, deps, asked, async (source, life) => {
      const { sourceVersion } = await source.resolve(from, life);
      return await source.fetch(from, { sourceVersion, limits: draft.placement, spool: deps.spool }, life);
    });
    return fetched === null || fetched.digest === digest;
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof SourceError && GONE.has(error.reason)) return false;
    throw error;
  }
}

async function fromPod({ draft, deps, digest, signal }: Wanted, pod: Pod): Promise<SpooledRevision | null> {
  const writer = deps.spool.begin();
  try {
    const { config, body } = await pod.client.fetch(draft.servedName, digest, signal);
    for await (const chunk of body) await writer.write(chunk);
    await writer.commit(digest, {
      config,
      step: revisionIn(pod.state, draft.servedName, digest)?.step ?? null,
    });
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
