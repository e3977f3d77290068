import type { AdapterDeps } from '../deps.ts';
import { observe } from '../plan.ts';
import type { Publication } from './publication.ts';

type Staged = Pick<Publication, 'namespace' | 'name' | 'servedName' | 'staged' | 'digest'>;

const DISCARD_MS = 1_000;

/** What a refused push has staged would else lie in the pods until they need the room, or for ever. */
export async function discard(deps: AdapterDeps, refused: Staged): Promise<void> {
  const { namespace, name, servedName, staged, digest } = refused;
  const { leading } = deps.leader;
  // No record: the object went while its push was under way. One that is not recovered does not know what it needs.
  const record = deps.records.get(`${namespace}/${name}`);
  if (leading === null || record?.recovered === false) return;
  const known = record === undefined ? [] : [record.desired, record.current, ...record.previous];
  if (known.some((revision) => revision?.digest === digest)) return;
  const fence = { term: leading.term, sequence: deps.records.nextSequence() };
  const pods = staged.flatMap(({ ok, pod }) =>
    ok && observe(pod, servedName, digest) !== 'current' ? [pod] : [],
  );
  const left = AbortSignal.timeout(DISCARD_MS);
  await Promise.allSettled(pods.map((pod) => pod.client.remove(servedName, digest, fence, left)));
}
