import { LorikeetError } from '../../../server/contract/errors.ts';
import { archiveOf } from '../../source/archive.ts';
import { SourceError } from '../../source/types.ts';
import { heldBytes } from '../bytes.ts';
import type { AdapterDeps } from '../deps.ts';
import { openDraft } from '../draft.ts';
import type { Publication } from './publication.ts';

/** Writes a pushed revision to where the spec wants it kept. Not null: it is not there, and so must not be acknowledged. */
export async function archiveRefusal(deps: AdapterDeps, publication: Publication): Promise<unknown> {
  const { namespace, name, digest, signal } = publication;
  const adapter = deps.adapters.get(`${namespace}/${name}`);
  const folder = adapter === undefined ? null : archiveOf(adapter, digest);
  if (adapter === undefined || folder === null) return null;
  try {
    const revision = await heldBytes({ draft: openDraft(deps, adapter), deps, digest, signal });
    if (revision === null) return notKept('neither the spool nor a pod could give its bytes');
    await deps.archive.keep(folder, revision, signal);
    return null;
  } catch (error) {
    return error instanceof SourceError ? notKept(error.message, error) : error;
  }
}

function notKept(why: string, cause?: unknown): LorikeetError {
  const message = `Expected the revision in the object store of spec.source.push before it is acknowledged, but: ${why}`;
  return new LorikeetError('not_durable', message, { field: 'spec.source.push.objectStore', cause });
}
