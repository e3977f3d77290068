import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { failureOf } from '../../../operator/adapter/failures.ts';
import { systemClock } from '../../../operator/kube/clock.ts';
import { AddressGuard } from '../../../operator/source/address-guard.ts';
import { openSources, sourceOf } from '../../../operator/source/index.ts';
import type { FetchLimits, SourcedAdapter } from '../../../operator/source/types.ts';
import { Spool, type SpooledRevision } from '../../../operator/spool/spool.ts';
import { type AdapterFiles, digestOf } from '../../support/adapter-files.ts';
import { PARROT_GEOMETRY } from '../../support/parrot-geometry.ts';

const LIMITS: FetchLimits = { maxBytes: 8 * 2 ** 20, fit: { geometry: PARROT_GEOMETRY, maxRank: 64 } };
const RANGES = { rangeBytes: 16 * 1024, concurrency: 4, stallMs: 2_000, resumes: 3, resumeDelayMs: 5 };

export type SourceBench = Awaited<ReturnType<typeof openBench>>;

/** The sources of an operator that is let to the loopback, with Secrets by name and a spool of its own. */
export async function openBench(
  kind: keyof SourcedAdapter['spec']['source'],
  { allowed = ['127.0.0.0/8'] }: { allowed?: string[] } = {},
) {
  const dir = await mkdtemp(join(tmpdir(), 'lorikeet-source-'));
  const spool = new Spool({ dir, maxBytes: 64 * 2 ** 20 });
  const secrets = new Map<string, Record<string, string>>();
  const { sources, archive } = openSources({
    readSecret: async (_namespace, name) => secrets.get(name) ?? null,
    guard: new AddressGuard({ allowed, apiServer: null }),
    clock: systemClock,
    ranges: RANGES,
  });
  const signal = AbortSignal.timeout(60_000);
  const adapterAt = (source: object, verify?: object): SourcedAdapter => ({
    metadata: { namespace: 'team-a', name: 'sql' },
    spec: { source: { [kind]: source }, ...(verify && { verify }) },
  });
  const resolve = async (source: object) => {
    const adapter = adapterAt(source);
    const { sourceVersion } = (await sourceOf(adapter, sources)?.resolve(adapter, signal)) ?? {};
    return sourceVersion ?? '';
  };
  /** Exactly that version; default: what is there. */
  const fetch = async (source: object, version?: string) => {
    const adapter = adapterAt(source);
    const sourceVersion = version ?? (await resolve(source));
    const fetched = await sourceOf(adapter, sources)?.fetch(
      adapter,
      { sourceVersion, limits: LIMITS, spool },
      signal,
    );
    if (fetched === undefined) throw new TypeError('no source');
    return fetched;
  };
  return {
    secrets,
    archive,
    spool,
    resolve,
    fetch,
    /** How it failed, as a condition says it. */
    async failure(promise: Promise<unknown>) {
      return failureOf(await promise.then(() => null).catch((error: unknown) => error));
    },
    async spooled(digest: string): Promise<Buffer> {
      const parts: Uint8Array[] = [];
      for await (const part of spool.open(digest)?.stream() ?? []) parts.push(part);
      return Buffer.concat(parts);
    },
    close: () => rm(dir, { recursive: true, force: true }),
  };
}

/** A revision as it is after a push. */
export async function spooled(files: AdapterFiles, spool: Spool): Promise<SpooledRevision> {
  const digest = digestOf(files);
  const writer = spool.begin();
  await writer.write(files.tensors);
  await writer.commit(digest, { config: JSON.parse(files.config.toString()) });
  return spool.open(digest) as SpooledRevision;
}
