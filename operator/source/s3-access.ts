import type { Clock } from '../kube/clock.ts';
import type { ReadSecret } from '../kube/secrets.ts';
import { caOf, type ReadAccess, secretReader, type Values } from './secret-access.ts';
import { Retryable } from './types.ts';

interface Credentials {
  accessKeyId: string;
  secretAccessKey: string;
  sessionToken?: string;
}

/** What a Secret holds for one store. */
export interface Access {
  credentials: Credentials;
  /** Certificates that the store's may be signed by, besides those that every program trusts; null: none. */
  ca: string | null;
}

export function accessReader(readSecret: ReadSecret, clock: Clock): ReadAccess<Access> {
  return secretReader(readSecret, clock, accessIn);
}

function accessIn(secret: Values, name: string): Access {
  const accessKeyId = secret.accessKeyId ?? secret.AWS_ACCESS_KEY_ID;
  const secretAccessKey = secret.secretAccessKey ?? secret.AWS_SECRET_ACCESS_KEY;
  const sessionToken = secret.sessionToken ?? secret.AWS_SESSION_TOKEN;
  if (!accessKeyId || !secretAccessKey) {
    throw new Retryable(
      'CredentialsNotFound',
      `Expected the keys accessKeyId and secretAccessKey (or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY) in Secret ${name}.`,
    );
  }
  const trimmed = { accessKeyId: accessKeyId.trim(), secretAccessKey: secretAccessKey.trim() };
  const credentials = sessionToken ? { ...trimmed, sessionToken: sessionToken.trim() } : trimmed;
  return { credentials, ca: caOf(secret, name) };
}
