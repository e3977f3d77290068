import type { ServerPool } from '../api/server-pool.ts';
import { type ReadSecret, SecretForbidden } from '../kube/secrets.ts';
import { TokenNotFound } from './errors.ts';
import type { AdminTokens } from './token.ts';

const TIMEOUT_MS = 5_000;
const KEY = 'token';
/** Before the key of the token: where the one before may stand. */
const PREVIOUS = 'previous-';

/** Reads the admin token of a pool's pods from the one Secret that the pool names, in the pool's own namespace. */
export function readAdminToken(readSecret: ReadSecret): (pool: ServerPool) => Promise<AdminTokens> {
  return async ({ metadata, spec }) => {
    const { name, key = KEY } = spec.admin.auth.tokenSecretRef;
    const secret = await readSecret(metadata.namespace ?? '', name, AbortSignal.timeout(TIMEOUT_MS)).catch(
      (error: unknown) => {
        if (error instanceof SecretForbidden) throw new TokenNotFound(error.message);
        throw error;
      },
    );
    if (secret === null) throw new TokenNotFound(`there is no Secret ${name}`);
    const token = secret[key]?.trim();
    if (!token) throw new TokenNotFound(`Secret ${name} has nothing under ${key}`);
    return { token, previous: secret[`${PREVIOUS}${key}`]?.trim() || null };
  };
}
