import type { Clock } from '../kube/clock.ts';
import type { ReadSecret } from '../kube/secrets.ts';
import type { AddressGuard } from './address-guard.ts';
import { Archive } from './archive.ts';
import type { Lane } from './errands.ts';
import { ObjectStoreSource } from './object-store.ts';
import type { OpenStore } from './port.ts';
import type { RangeLimits } from './ranges.ts';
import { openS3 } from './s3.ts';
import { accessReader } from './s3-access.ts';
import { type Source, type SourcedAdapter, Terminal } from './types.ts';

export interface SourceOptions {
  readSecret: ReadSecret;
  /** Which endpoints may be asked. */
  guard: AddressGuard;
  clock: Clock;
  /** See S3Options. Default: off. */
  ambientCredentials?: boolean;
  ranges?: Partial<RangeLimits>;
}

const RANGES: RangeLimits = {
  rangeBytes: 8 * 1024 * 1024,
  concurrency: 4,
  stallMs: 30_000,
  paceBytes: 1024 * 1024,
  resumes: 3,
  resumeDelayMs: 250,
};
const CONNECT_TIMEOUT_MS = 5_000;

export type SourceKind = Exclude<keyof SourcedAdapter['spec']['source'], 'push'>;
export type Sources = Record<SourceKind, Source>;

export interface Opened {
  sources: Sources;
  archive: Archive;
}

/** One entry per member of spec.source that is fetched; `push` is not: its trainer comes by itself, and its revisions are kept. */
export function openSources(options: SourceOptions): Opened {
  const { readSecret, guard, clock, ambientCredentials = false } = options;
  const readAccess = accessReader(readSecret, clock);
  const s3 = { readAccess, guard, ambientCredentials, connectTimeoutMs: CONNECT_TIMEOUT_MS };
  const openStore: OpenStore = (adapter, signal) => openS3(adapter, s3, signal);
  const stores = new Map([['s3', openStore]]);
  const limits = { ...RANGES, ...options.ranges };
  return {
    sources: { objectStore: new ObjectStoreSource({ stores, limits, clock }) },
    archive: new Archive(openStore),
  };
}

/** Whom a slow store would hold up. */
export function laneOf({ metadata, spec }: SourcedAdapter): Lane {
  const { uri = '', endpoint } = spec.source.objectStore ?? {};
  const [, , bucket = ''] = uri.split('/', 3);
  const host = endpoint && URL.canParse(endpoint) ? new URL(endpoint).host : bucket;
  return { tenant: metadata.namespace ?? '', host };
}

/** Null for an adapter that is pushed. */
export function sourceOf(adapter: SourcedAdapter, sources: Sources): Source | null {
  const { source } = adapter.spec;
  if (source.push !== undefined) return null;
  const kind = (Object.keys(sources) as SourceKind[]).find((key) => source[key] !== undefined);
  if (kind === undefined)
    throw new Terminal('SourceInvalid', 'Expected a member of spec.source that this operator knows.');
  return sources[kind];
}
