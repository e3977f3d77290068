import { isApiError } from './api-error.ts';
import { apiVersionOf, type KubeObject, pathOf, type Resource } from './resource.ts';
import type { Rest } from './rest.ts';

export interface ListOptions {
  rest: Rest;
  resource: Resource;
  namespace?: string | undefined;
  labelSelector?: string | undefined;
  signal?: AbortSignal | undefined;
}

interface Page<T> {
  metadata: { resourceVersion?: string; continue?: string };
  items: T[] | null;
}

const PAGE_SIZE = 500;
const PAGES_MAX = 1_000;
const RESTARTS_MAX = 3;
const TIMEOUT_MS = 30_000;

/** All objects as they were at one resource version; begins anew when the server forgets that version on the way. */
export async function listAll<T extends KubeObject>(
  options: ListOptions,
): Promise<{ objects: T[]; resourceVersion: string }> {
  for (let restarts = 0; ; restarts += 1) {
    try {
      return await listOnce<T>(options);
    } catch (error) {
      if (!isApiError(error, 410) || restarts === RESTARTS_MAX) throw error;
    }
  }
}

async function listOnce<T extends KubeObject>(
  options: ListOptions,
): Promise<{ objects: T[]; resourceVersion: string }> {
  const { rest, resource, namespace, labelSelector, signal } = options;
  const objects: T[] = [];
  let next: string | undefined;
  for (let pages = 0; pages < PAGES_MAX; pages += 1) {
    const page = await rest.request<Page<T>>({
      method: 'GET',
      path: pathOf(resource, { namespace }),
      query: { limit: PAGE_SIZE, continue: next, labelSelector },
      signal,
      timeoutMs: TIMEOUT_MS,
    });
    // Lists of built-in kinds leave out what all items have in common.
    for (const item of page.items ?? []) {
      objects.push({ ...item, apiVersion: apiVersionOf(resource), kind: resource.kind });
    }
    next = page.metadata.continue || undefined;
    if (next === undefined) return { objects, resourceVersion: page.metadata.resourceVersion ?? '' };
  }
  throw new RangeError(`Expected at most ${PAGES_MAX} pages of ${resource.plural} but there are more`);
}
