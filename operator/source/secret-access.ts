import { X509Certificate } from 'node:crypto';
import type { Clock } from '../kube/clock.ts';
import { type ReadSecret, SecretForbidden } from '../kube/secrets.ts';
import { Retryable } from './types.ts';

export interface SecretName {
  namespace: string;
  name: string;
}

export type Values = Readonly<Record<string, string>>;
export type ReadAccess<T> = (secret: SecretName, signal: AbortSignal) => Promise<T>;

/** Less than those wait who look again. */
const FAILURE_MS = 2_000;

/**
 * Reads what a Secret gives access to, and keeps nothing of it. Only that it gave none is remembered for a moment: many
 * adapters may name the same Secret, and then they all look again at the same time.
 */
export function secretReader<T>(
  readSecret: ReadSecret,
  clock: Clock,
  accessIn: (values: Values, name: string) => T,
): ReadAccess<T> {
  const failures = new Map<string, { error: Retryable; untilMs: number }>();
  return async (secret, signal) => {
    const nowMs = clock.monotonicMs();
    for (const [key, { untilMs }] of failures) if (untilMs <= nowMs) failures.delete(key);
    const key = `${secret.namespace}/${secret.name}`;
    const known = failures.get(key);
    if (known !== undefined) throw known.error;
    try {
      return accessIn(await valuesOf(secret, readSecret, signal), secret.name);
    } catch (error) {
      if (error instanceof Retryable) failures.set(key, { error, untilMs: clock.monotonicMs() + FAILURE_MS });
      throw error;
    }
  };
}

async function valuesOf(
  { namespace, name }: SecretName,
  readSecret: ReadSecret,
  signal: AbortSignal,
): Promise<Values> {
  const secret = await readSecret(namespace, name, signal).catch((error) => {
    signal.throwIfAborted();
    if (error instanceof SecretForbidden) {
      const message = `${error.message}: name it in sourceSecrets of the pool's chart.`;
      throw new Retryable('CredentialsForbidden', message, error);
    }
    throw new Retryable(
      'CredentialsNotFound',
      `The API server does not give Secret ${name} just now.`,
      error,
    );
  });
  // Retryable: a Secret often arrives after the object that names it.
  if (secret === null)
    throw new Retryable('CredentialsNotFound', `There is no Secret ${name} in this namespace.`);
  return secret;
}

const PEM_BLOCK = /-----BEGIN CERTIFICATE-----.*?(?:-----END CERTIFICATE-----|$)/gs;

/** Node's TLS passes over what it cannot read, so that a broken one would look like a store that nobody should trust. */
export function caOf(secret: Values, name: string): string | null {
  const ca = secret['ca.crt'];
  if (ca === undefined) return null;
  try {
    const certificates = (ca.match(PEM_BLOCK) ?? []).map((block) => new X509Certificate(block));
    if (certificates.length > 0) return ca;
  } catch {
    // Said below: what OpenSSL says of it does not help anybody.
  }
  throw new Retryable('CredentialsNotFound', `Expected certificates in PEM under ca.crt in Secret ${name}.`);
}
