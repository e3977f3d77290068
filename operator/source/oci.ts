import { createHash } from 'node:crypto';
import type { Readable } from 'node:stream';
import { z } from 'zod';
import { jsonOrNull } from '../../server/transfer/call.ts';
import type { AddressGuard } from './address-guard.ts';
import { type OciAccess, Registry } from './oci-registry.ts';
import type { ObjectKey, ObjectStore, Span, StoredObject } from './port.ts';
import type { ReadAccess } from './secret-access.ts';
import { type SourcedAdapter, Terminal } from './types.ts';
import { bodyOf, failureOfStatus, rangeHeader, Web } from './web.ts';

export interface OciOptions {
  readAccess: ReadAccess<OciAccess>;
  guard: AddressGuard;
}

export interface Image {
  /** With its port. */
  host: string;
  repository: string;
  /** A digest, where there is one; else a tag. */
  reference: string;
}

const IMAGE =
  /^((?:[a-z0-9-]+\.)*[a-z0-9-]+(?::\d{1,5})?)\/([a-z0-9]+(?:(?:[._/]|__|-+)[a-z0-9]+)*)(?::(\w[\w.-]{0,127}))?(?:@(sha256:[0-9a-f]{64}))?$/;
const MANIFEST_TYPE = 'application/vnd.oci.image.manifest.v1+json';
/** What registries take at most. */
const MANIFEST_BYTES_MAX = 4 << 20;
const TITLE = 'org.opencontainers.image.title';

const Manifest = z.object({
  layers: z.array(
    z.object({
      digest: z.string().regex(/^sha256:[0-9a-f]{64}$/),
      size: z.number().int().nonnegative(),
      annotations: z.record(z.string(), z.string()).nullish(),
    }),
  ),
});
type Layer = z.infer<typeof Manifest>['layers'][number];

/** An artifact of a registry: the layers whose titles are those of the adapter's files, as `oras push` makes them. */
export async function openOci(
  { metadata, spec }: SourcedAdapter,
  { readAccess, guard }: OciOptions,
  signal: AbortSignal,
): Promise<ObjectStore> {
  const { image: text = '', credentialsSecretRef } = spec.source.oci ?? {};
  const image = imageIn(text);
  const { namespace = '' } = metadata;
  const secret = credentialsSecretRef && { namespace, name: credentialsSecretRef.name };
  const access = secret === undefined ? null : await readAccess(secret, signal);
  return new OciStore(new Registry(new Web(guard, access?.ca ?? null), image, access), image);
}

class OciStore implements ObjectStore {
  readonly #registry: Registry;
  readonly #image: Image;
  #layers: Promise<Layer[]> | null = null;

  constructor(registry: Registry, image: Image) {
    this.#registry = registry;
    this.#image = image;
  }

  async head(key: ObjectKey, signal: AbortSignal): Promise<StoredObject> {
    this.#layers ??= this.#manifest(signal);
    const named = (await this.#layers).filter(({ annotations }) => annotations?.[TITLE] === key);
    const [layer] = named;
    if (layer === undefined || named.length > 1) {
      const message = `Expected one layer of title ${key} in ${this.#name} but found ${named.length}.`;
      throw new Terminal('SourceInvalid', message);
    }
    const [, sha256 = ''] = layer.digest.split(':');
    return {
      key,
      version: layer.digest,
      size: layer.size,
      wanted: { sha256, field: 'spec.source.oci.image' },
    };
  }

  async open({ version, ...object }: StoredObject, span: Span, signal: AbortSignal): Promise<Readable> {
    const asked = { path: `blobs/${version}`, headers: rangeHeader(span) };
    const answer = await this.#registry.get(asked, signal);
    return bodyOf(answer, { version, ...object }, span, `${this.#name} (${object.key})`);
  }

  close(): void {
    this.#registry.close();
  }

  get #name(): string {
    return nameOfImage(this.#image);
  }

  async #manifest(signal: AbortSignal): Promise<Layer[]> {
    const { reference } = this.#image;
    const asked = { path: `manifests/${reference}`, headers: { accept: MANIFEST_TYPE } };
    const answer = await this.#registry.get(asked, signal);
    if (answer.status !== 200) {
      answer.body.destroy();
      throw failureOfStatus(answer.status, this.#name, this.#registry.way);
    }
    const bytes = await this.#registry.take(answer, MANIFEST_BYTES_MAX, signal);
    const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
    if (reference.startsWith('sha256:') && digest !== reference)
      throw new Terminal('SourceInvalid', `The registry answers with another manifest than ${this.#name}.`);
    const manifest = Manifest.safeParse(jsonOrNull(bytes.toString()));
    if (manifest.success) return manifest.data.layers;
    const message = `Expected a manifest with layers, not an index of several, under ${this.#name}.`;
    throw new Terminal('SourceInvalid', message);
  }
}

/** Throws Terminal SourceInvalid. */
function imageIn(text: string): Image {
  const [, host, repository, tag, digest] = IMAGE.exec(text) ?? [];
  const reference = digest ?? tag;
  if (host === undefined || repository === undefined || reference === undefined) {
    const message = 'Expected an image of the form registry.example/team/sql:tag or …@sha256:<64 digits>.';
    throw new Terminal('SourceInvalid', message);
  }
  return { host, repository, reference };
}

export function hostOfImage(text: string): string {
  return text.split('/', 1)[0] ?? '';
}

function nameOfImage({ host, repository, reference }: Image): string {
  return `oci://${host}/${repository}${reference.includes(':') ? '@' : ':'}${reference}`;
}
