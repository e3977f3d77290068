import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, expect } from 'vitest';
import { type Failure, failureOf } from '../../../operator/adapter/failures.ts';
import { systemClock } from '../../../operator/kube/clock.ts';
import { AddressGuard } from '../../../operator/source/address-guard.ts';
import type { Archive } from '../../../operator/source/archive.ts';
import { type Opened, openSources, type SourceOptions } from '../../../operator/source/index.ts';
import { type FetchLimits, type SourcedAdapter, SourceError } from '../../../operator/source/types.ts';
import { Spool } from '../../../operator/spool/spool.ts';
import { LorikeetError } from '../../../server/contract/errors.ts';
import { type ObjectStore, startObjectStore } from '../../cluster/object-store.ts';
import { PARROT_GEOMETRY } from '../../support/parrot-geometry.ts';
import { FaultProxy } from './fault-proxy.ts';

// A real S3 server behind a proxy that can fail, and a source that reads from it, anew for each test of a file.
export let store: ObjectStore;
export let proxy: FaultProxy;
export let endpoint: string;
let dir: string;
export let spool: Spool;
let prefix = 0;

beforeAll(async () => {
  store = await startObjectStore();
}, 30_000);
afterAll(() => store?.stop());

beforeEach(async () => {
  proxy = new FaultProxy(store.endpoint);
  endpoint = await proxy.listen();
  dir = await mkdtemp(join(tmpdir(), 'lorikeet-source-'));
  spool = new Spool({ dir, maxBytes: 64 * 2 ** 20 });
});
afterEach(async () => {
  await proxy.close();
  await rm(dir, { recursive: true, force: true });
});

export const signal = AbortSignal.timeout(60_000);
export const LIMITS: FetchLimits = { maxBytes: 8 * 2 ** 20, fit: { geometry: PARROT_GEOMETRY, maxRank: 64 } };
export const RANGES = { rangeBytes: 16 * 1024, concurrency: 4, stallMs: 300, resumes: 3, resumeDelayMs: 5 };

export function source(options: Partial<SourceOptions> = {}) {
  return opened(options).sources.objectStore;
}

export function archive(): Archive {
  return opened().archive;
}

function opened(options: Partial<SourceOptions> = {}): Opened {
  return openSources({
    readSecret: async (namespace, name) =>
      namespace === 'team-a' && name === 'bucket-key'
        ? { accessKeyId: store.accessKeyId, secretAccessKey: store.secretAccessKey }
        : null,
    guard: new AddressGuard({ allowed: ['127.0.0.0/8'], apiServer: null }),
    clock: systemClock,
    ranges: RANGES,
    ...options,
  });
}

export async function put(
  files: { tensors: Buffer; config: Buffer },
  path = `p${prefix++}`,
): Promise<string> {
  await store.put('adapters', `${path}/adapter_config.json`, files.config);
  await store.put('adapters', `${path}/adapter_model.safetensors`, files.tensors);
  return path;
}

export function adapter(
  path: string,
  objectStore: object = {},
  verify?: SourcedAdapter['spec']['verify'],
): SourcedAdapter {
  const spec = {
    uri: `s3://adapters/${path}/`,
    endpoint,
    credentialsSecretRef: { name: 'bucket-key' },
    ...objectStore,
  };
  return {
    metadata: { namespace: 'team-a', name: 'sql' },
    spec: { source: { objectStore: spec }, ...(verify ? { verify } : {}) },
  };
}

export async function fetched(wanted: SourcedAdapter, from = source(), limits = LIMITS) {
  return await from.fetch(wanted, { ...(await from.resolve(wanted, signal)), limits, spool }, signal);
}

/** What went wrong, with what the condition says of it. */
export async function failure(
  promise: Promise<unknown>,
): Promise<Error & { reason: Failure['reason']; retryable: boolean }> {
  const error = await promise.then(
    () => null,
    (reason: unknown) => reason,
  );
  expect(error instanceof SourceError || error instanceof LorikeetError).toBe(true);
  const { reason, terminal } = failureOf(error);
  return Object.assign(error as Error, { reason, retryable: !terminal });
}

export async function spooled(digest: string): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const part of spool.open(digest)?.stream() ?? []) parts.push(part);
  return Buffer.concat(parts);
}

export const sha256 = async (bytes: Uint8Array) =>
  Buffer.from(await crypto.subtle.digest('SHA-256', new Uint8Array(bytes))).toString('hex');

/** After a test that closed it: another one, which the hooks close. */
export async function reopenProxy(): Promise<void> {
  proxy = new FaultProxy(store.endpoint);
  await proxy.listen();
}

/** For the rest of a test. */
export function limitSpool(maxBytes: number): void {
  spool = new Spool({ dir, maxBytes });
}
