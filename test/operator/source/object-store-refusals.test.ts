import { describe, expect, it } from 'vitest';
import { ApiError } from '../../../operator/kube/api-error.ts';
import { SecretForbidden } from '../../../operator/kube/secrets.ts';
import { goodAdapter, packSafetensors, wideTensors } from '../../support/adapter-files.ts';
import { PARROT_GEOMETRY } from '../../support/parrot-geometry.ts';
import {
  adapter,
  failure,
  fetched,
  LIMITS,
  limitSpool,
  proxy,
  put,
  reopenProxy,
  sha256,
  source,
  spool,
  store,
} from './object-store-bench.ts';

const CANARY = 'canary-secret-5b1f';

describe('a source that cannot be read', () => {
  it.each([
    ['object', 's3://adapters/nowhere/', /^There is no s3:\/\/adapters\/nowhere\/adapter_config\.json\.$/],
    ['bucket', 's3://no-such-bucket/sql/', /^There is no bucket no-such-bucket\.$/],
  ])('says SourceNotFound for a missing %s, with its name', async (_, uri, message) => {
    await put(goodAdapter());
    const error = await failure(fetched(adapter('any', { uri })));
    expect([error.reason, error.retryable]).toEqual(['SourceNotFound', true]);
    expect(error.message).toMatch(message);
  });

  it('says SourceInvalid for a scheme that nobody reads', async () => {
    const error = await failure(fetched(adapter('any', { uri: 'ftp://adapters/any/' })));
    expect([error.reason, error.retryable]).toEqual(['SourceInvalid', false]);
    expect(error.message).toBe('Expected a uri that begins with s3:// or gs:// or az://.');
    expect(proxy.seen).toEqual([]);
  });

  it('says SourceAccessDenied for a wrong key, and does not repeat it', async () => {
    const path = await put(goodAdapter());
    const from = source({
      readSecret: async () => ({ accessKeyId: store.accessKeyId, secretAccessKey: CANARY }),
    });
    const error = await failure(fetched(adapter(path), from));
    expect([error.reason, error.retryable]).toEqual(['SourceAccessDenied', true]);
    expect(error.message).toMatch(
      /^The object store denies access to s3:\/\/adapters\/p\d+\/adapter_(model|config)\.\w+\.$/,
    );
    expect(told(error)).not.toContain(CANARY);
    expect(told(error)).not.toContain('Signature');
  });

  it.each([
    ['a missing Secret', 'There is no Secret bucket-key in this namespace.', async () => null],
    [
      'a Secret without the keys',
      'Expected the keys accessKeyId and secretAccessKey (or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY) in Secret bucket-key.',
      async () => ({ password: CANARY }),
    ],
    [
      'a Secret that cannot be had',
      'The API server does not give Secret bucket-key just now.',
      async () => Promise.reject(new Error(`Bearer ${CANARY}`)),
    ],
  ])('says CredentialsNotFound for %s, and what to do', async (_, message, readSecret) => {
    const error = await failure(fetched(adapter('any'), source({ readSecret })));
    expect([error.reason, error.retryable, error.message]).toEqual(['CredentialsNotFound', true, message]);
    expect(proxy.seen).toEqual([]);
  });

  it('says CredentialsForbidden for a Secret that RBAC hides, which right is missing and where it is given', async () => {
    const refusal = new ApiError({ status: 403, reason: 'Forbidden' }, 'User "bird" cannot get resource');
    const readSecret = async () => Promise.reject(new SecretForbidden('team-a', 'bucket-key', refusal));
    const error = await failure(fetched(adapter('any'), source({ readSecret })));
    expect([error.reason, error.retryable]).toEqual(['CredentialsForbidden', true]);
    expect(error.message).toBe(
      "No Role lets bird get secrets/bucket-key in namespace team-a: name it in sourceSecrets of the pool's chart.",
    );
    expect(proxy.seen).toEqual([]);
  });

  it('is read unsigned without credentials, whatever the environment holds', async () => {
    const path = await put(goodAdapter());
    process.env.AWS_ACCESS_KEY_ID = CANARY;
    process.env.AWS_SECRET_ACCESS_KEY = CANARY;
    try {
      const error = await failure(fetched(adapter(path, { credentialsSecretRef: undefined })));
      expect(error.reason).toBe('SourceAccessDenied');
      expect(error.message).toContain('nothing signs (spec.source names no credentialsSecretRef) to s3://');
    } finally {
      delete process.env.AWS_ACCESS_KEY_ID;
      delete process.env.AWS_SECRET_ACCESS_KEY;
    }
    expect(proxy.seen.length).toBeGreaterThan(0);
    expect(proxy.seen.filter(({ headers }) => headers.authorization !== undefined)).toEqual([]);
    expect(JSON.stringify(proxy.seen)).not.toContain(CANARY);
  });

  it('says SourceUnreachable when nobody listens', async () => {
    await proxy.close();
    const error = await failure(fetched(adapter('any')));
    expect([error.reason, error.retryable]).toEqual(['SourceUnreachable', true]);
    await reopenProxy();
  });
});

describe('an adapter that does not fit', () => {
  it('is refused after its first bytes', async () => {
    const files = {
      ...goodAdapter(7, { r: 64, target_modules: ['q_proj'] }),
      tensors: packSafetensors(wideTensors()),
    };
    const limits = { ...LIMITS, fit: { geometry: PARROT_GEOMETRY, maxRank: 16 } };
    const error = await failure(fetched(adapter(await put(files)), source(), limits));
    expect([error.reason, error.retryable]).toEqual(['RankTooLarge', false]);
    expect(proxy.bytes).toBeLessThan(70_000);
    expect(files.tensors.length).toBeGreaterThan(500_000);
  });

  it.each([
    ['larger than allowed', goodAdapter().tensors, { maxBytes: 1000 }, 'AdapterTooLarge'],
    ['empty', Buffer.alloc(0), {}, 'AdapterMalformed'],
    ['a pickle', Buffer.from('\x80\x04\x95 not tensors at all'), {}, 'AdapterMalformed'],
    ['cut short', goodAdapter().tensors.subarray(0, -1), {}, 'AdapterMalformed'],
    [
      'with bytes after its end',
      Buffer.concat([goodAdapter().tensors, Buffer.alloc(1)]),
      {},
      'AdapterMalformed',
    ],
  ])('is refused for good when it is %s', async (_, tensors, limits, reason) => {
    const path = await put({ tensors, config: goodAdapter().config });
    const error = await failure(fetched(adapter(path), source(), { ...LIMITS, ...limits }));
    expect([error.reason, error.retryable]).toEqual([reason, false]);
    expect([spool.list(), spool.usedBytes]).toEqual([[], 0]);
  });

  it.each([
    ['sha256', { sha256: '0'.repeat(64) }, 'DigestMismatch'],
    ['rank', { rank: 16 }, 'RankMismatch'],
    ['target modules', { targetModules: ['q_proj'] }, 'TargetModulesMismatch'],
  ])('to spec.verify is refused: %s', async (_, verify, reason) => {
    const error = await failure(fetched(adapter(await put(goodAdapter()), {}, verify)));
    expect([error.reason, error.retryable]).toEqual([reason, false]);
    expect([spool.list(), spool.usedBytes]).toEqual([[], 0]);
  });

  it('passes when spec.verify names what it is', async () => {
    const files = goodAdapter();
    const verify = { sha256: await sha256(files.tensors), rank: 8, targetModules: ['v_proj', 'q_proj'] };
    expect((await fetched(adapter(await put(files), {}, verify))).bytes).toBe(files.tensors.length);
  });

  it('waits when the spool has no room', async () => {
    limitSpool(1000);
    const error = await failure(fetched(adapter(await put(goodAdapter()))));
    expect([error.reason, error.retryable, spool.usedBytes]).toEqual(['InternalError', true, 0]);
  });
});

/** All that a log could print of an error. */
function told(error: unknown): string {
  const parts: string[] = [];
  for (let current = error; current instanceof Error; current = current.cause) {
    parts.push(
      current.message,
      current.stack ?? '',
      JSON.stringify(current, Object.getOwnPropertyNames(current)),
    );
  }
  return parts.join('\n');
}
