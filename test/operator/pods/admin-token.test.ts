import { describe, expect, it } from 'vitest';
import { ApiError } from '../../../operator/kube/api-error.ts';
import { type ReadSecret, SecretForbidden } from '../../../operator/kube/secrets.ts';
import { readAdminToken } from '../../../operator/pods/admin-token.ts';
import { TokenNotFound } from '../../../operator/pods/errors.ts';
import { rootMessage } from '../../../server/transfer/unreachable.ts';
import { serverPool } from '../adapter/objects.ts';

const token = (readSecret: ReadSecret) => readAdminToken(readSecret)(serverPool(1));
const hidden = new SecretForbidden('lora', 'admin', new ApiError({ status: 403, reason: 'Forbidden' }, 'no'));

describe('the admin token of a pool', () => {
  it('is what its Secret has under the key, trimmed', async () => {
    expect(await token(async () => ({ token: 'hunter2\n' }))).toEqual({
      token: 'hunter2',
      previous: null,
    });
  });

  it.each([
    ['there is no Secret', async () => null, 'there is no Secret admin'],
    ['it has nothing under the key', async () => ({ other: 'x' }), 'Secret admin has nothing under token'],
    [
      'RBAC hides it',
      async () => Promise.reject(hidden),
      'No Role lets the operator get secrets/admin in namespace lora',
    ],
  ])('is not found where %s, in words that a condition shows', async (_, readSecret, words) => {
    const error = await token(readSecret).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(TokenNotFound);
    expect(rootMessage(error)).toBe(words);
  });

  it('fails as the call did where the API server is away', async () => {
    const away = new ApiError({ status: 0, reason: 'Unreachable' }, 'no reply');
    await expect(token(async () => Promise.reject(away))).rejects.toBe(away);
  });
});
