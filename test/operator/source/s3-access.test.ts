import { beforeEach, describe, expect, it } from 'vitest';
import { type Access, accessReader } from '../../../operator/source/s3-access.ts';
import type { ReadAccess } from '../../../operator/source/secret-access.ts';
import { FakeClock } from '../kube/fake-clock.ts';

const KEYS = { accessKeyId: 'key', secretAccessKey: 'secret' };
const SECRET = { namespace: 'team-a', name: 'minio' };
const signal = new AbortController().signal;

let clock: FakeClock;
let secrets: Map<string, Record<string, string>>;
let reads: number;
let readAccess: ReadAccess<Access>;

beforeEach(() => {
  clock = new FakeClock();
  secrets = new Map();
  reads = 0;
  readAccess = accessReader(async (namespace, name) => {
    reads += 1;
    return secrets.get(`${namespace}/${name}`) ?? null;
  }, clock);
});

const notFound = expect.objectContaining({ reason: 'CredentialsNotFound' });

describe('a Secret that gives no access', () => {
  it.each([
    ['is missing', null],
    ['lacks a key', { accessKeyId: 'key' }],
  ])('and %s is read once for all who look at the same time', async (_, secret) => {
    if (secret) secrets.set('team-a/minio', secret);
    for (let adapters = 0; adapters < 100; adapters += 1) {
      await expect(readAccess(SECRET, signal)).rejects.toEqual(notFound);
    }
    expect(reads).toBe(1);
  });

  it('is read anew by those who look later, once it has been put right', async () => {
    await expect(readAccess(SECRET, signal)).rejects.toEqual(notFound);
    secrets.set('team-a/minio', KEYS);
    clock.freeze(2_000);
    expect(await readAccess(SECRET, signal)).toEqual({ credentials: KEYS, ca: null });
  });

  it('says nothing of another, nor of one of the same name elsewhere', async () => {
    await expect(readAccess(SECRET, signal)).rejects.toEqual(notFound);
    for (const key of ['team-a/other', 'team-b/minio']) {
      secrets.set(key, KEYS);
      const [namespace = '', name = ''] = key.split('/');
      expect((await readAccess({ namespace, name }, signal)).credentials).toEqual(KEYS);
    }
  });
});

it('a Secret that gives access is read each time, and never kept', async () => {
  secrets.set('team-a/minio', KEYS);
  await readAccess(SECRET, signal);
  secrets.set('team-a/minio', { ...KEYS, accessKeyId: 'rotated' });
  expect((await readAccess(SECRET, signal)).credentials.accessKeyId).toBe('rotated');
});
