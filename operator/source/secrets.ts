import type { ReadSecret } from './types.ts';

interface SecretApi {
  request<T>(call: { method: 'GET'; path: string; signal: AbortSignal; timeoutMs: number }): Promise<T>;
}

const TIMEOUT_MS = 5_000;

/** Reads a Secret when it is needed and keeps nothing: the operator neither lists nor watches Secrets. */
export function secretsOf(api: SecretApi): ReadSecret {
  return async (namespace, name, signal) => {
    const path = `/api/v1/namespaces/${encodeURIComponent(namespace)}/secrets/${encodeURIComponent(name)}`;
    try {
      const secret = await api.request<{ data?: Record<string, string> }>({
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
      if (error instanceof Error && 'status' in error && error.status === 404) return null;
      throw error;
    }
  };
}
