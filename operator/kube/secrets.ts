import { type ApiError, isApiError } from './api-error.ts';
import { pathOf, SECRETS } from './resource.ts';
import type { Rest } from './rest.ts';

/** The decoded values of a Secret, or null where there is none of this name; rejects with SecretForbidden or ApiError. */
export type ReadSecret = (
  namespace: string,
  name: string,
  signal: AbortSignal,
) => Promise<Record<string, string> | null>;

/** RBAC hides the Secret; whether there is one, the API server does not say then. */
export class SecretForbidden extends Error {
  constructor(namespace: string, name: string, cause: ApiError) {
    // The API server knows whom it sees in us, and says so in these words whatever authorizes.
    const [, account = 'the operator'] = /\bUser "([^"]+)"/.exec(cause.message) ?? [];
    super(`No Role lets ${account} get secrets/${name} in namespace ${namespace}`, { cause });
    this.name = 'SecretForbidden';
  }
}

const TIMEOUT_MS = 5_000;

/** Reads a Secret when it is needed and keeps nothing: the operator neither lists nor watches Secrets. */
export function secretsOf(rest: Pick<Rest, 'request'>): ReadSecret {
  return async (namespace, name, signal) => {
    const path = pathOf(SECRETS, { namespace, name });
    try {
      const secret = await rest.request<{ data?: Record<string, string> }>({
        method: 'GET',
        path,
        signal,
        timeoutMs: TIMEOUT_MS,
      });
      const entries = Object.entries(secret.data ?? {});
      return Object.fromEntries(
        entries.map(([key, value]) => [key, Buffer.from(value, 'base64').toString('utf8')]),
      );
    } catch (error) {
      if (isApiError(error, 404)) return null;
      if (isApiError(error, 403)) throw new SecretForbidden(namespace, name, error);
      throw error;
    }
  };
}
