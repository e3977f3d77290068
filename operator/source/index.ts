import type { Clock } from '../kube/clock.ts';
import type { ReadSecret } from '../kube/secrets.ts';
import type { AddressGuard } from './address-guard.ts';
import { Archive } from './archive.ts';
import { ambientIdentity } from './aws-identity.ts';
import { azureAccessIn, openAzure } from './azure.ts';
import type { Lane } from './errands.ts';
import { httpAccessIn, nameOf, openHttp } from './http.ts';
import { HUB, hubAccessIn, openHub } from './hugging-face.ts';
import { ObjectStoreSource } from './object-store.ts';
import { hostOfImage, openOci } from './oci.ts';
import { ociAccessIn } from './oci-registry.ts';
import type { OpenStore } from './port.ts';
import type { RangeLimits } from './ranges.ts';
import { openS3 } from './s3.ts';
import { accessReader } from './s3-access.ts';
import { GS } from './s3-location.ts';
import { secretReader } from './secret-access.ts';
import { type Source, type SourcedAdapter, Terminal } from './types.ts';

export interface SourceOptions {
  readSecret: ReadSecret;
  /** Which endpoints may be asked. */
  guard: AddressGuard;
  clock: Clock;
  /** See S3Options. Default: off. */
  ambientCredentials?: boolean;
  ranges?: Partial<RangeLimits> | undefined;
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
  const ambient = ambientCredentials ? ambientIdentity() : null;
  const s3 = { readAccess, guard, ambient, connectTimeoutMs: CONNECT_TIMEOUT_MS };
  const http = { readAccess: secretReader(readSecret, clock, httpAccessIn), guard };
  const hub = { readAccess: secretReader(readSecret, clock, hubAccessIn), guard };
  const oci = { readAccess: secretReader(readSecret, clock, ociAccessIn), guard };
  const date = () => clock.date();
  const azure = { readAccess: secretReader(readSecret, clock, azureAccessIn), guard, date };
  const openStore = byScheme(
    new Map<string, OpenStore>([
      ['s3', (adapter, signal) => openS3(adapter, s3, signal)],
      ['gs', (adapter, signal) => openS3(adapter, { ...s3, dialect: GS }, signal)],
      ['az', (adapter, signal) => openAzure(adapter, azure, signal)],
    ]),
  );
  const reading = { limits: { ...RANGES, ...options.ranges }, clock };
  const from = (open: OpenStore) => new ObjectStoreSource({ open, ...reading });
  return {
    sources: {
      objectStore: from(openStore),
      huggingFace: from((adapter, signal) => openHub(adapter, hub, signal)),
      http: from((adapter, signal) => openHttp(adapter, http, signal)),
      oci: from((adapter, signal) => openOci(adapter, oci, signal)),
    },
    archive: new Archive(openStore),
  };
}

/** The scheme of spec.source.objectStore.uri says who opens it. */
function byScheme(schemes: ReadonlyMap<string, OpenStore>): OpenStore {
  return async (adapter, signal) => {
    const [scheme = ''] = adapter.spec.source.objectStore?.uri.split('://', 1) ?? [];
    const open = schemes.get(scheme);
    if (open) return await open(adapter, signal);
    const known = [...schemes.keys()].map((name) => `${name}://`).join(' or ');
    throw new Terminal('SourceInvalid', `Expected a uri that begins with ${known}.`);
  };
}

/** Whom a slow store would hold up. */
export function laneOf({ metadata, spec }: SourcedAdapter): Lane {
  return { tenant: metadata.namespace ?? '', host: hostOf(spec.source) };
}

function hostOf({ objectStore, huggingFace, http, oci }: SourcedAdapter['spec']['source']): string {
  if (oci) return hostOfImage(oci.image);
  const url = objectStore?.endpoint ?? http?.url ?? (huggingFace && (huggingFace.endpoint ?? HUB));
  if (url && URL.canParse(url)) return new URL(url).host;
  const [, , bucket = ''] = objectStore?.uri.split('/', 3) ?? [];
  return bucket;
}

/** Where the tensors lie, for people. */
export function placeOf({ spec }: SourcedAdapter): string {
  const { objectStore, huggingFace, http, oci } = spec.source;
  if (oci) return `oci://${oci.image}`;
  if (huggingFace) return `hf://${huggingFace.repo}@${huggingFace.revision}`;
  if (http) return URL.canParse(http.url) ? nameOf(new URL(http.url)) : '';
  return objectStore?.uri ?? '';
}

/** The Secret that a source is read with; null: none. */
export function secretOf({ spec }: SourcedAdapter): string | null {
  const { objectStore, huggingFace, http, oci } = spec.source;
  const reference = (objectStore ?? http ?? oci)?.credentialsSecretRef ?? huggingFace?.tokenSecretRef;
  return reference?.name ?? null;
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
