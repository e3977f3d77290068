import type { Readable } from 'node:stream';
import {
  GetObjectCommand,
  type GetObjectCommandOutput,
  HeadObjectCommand,
  type S3Client,
} from '@aws-sdk/client-s3';
import type { Location } from './location.ts';
import { type RangeLimits, readRanges } from './ranges.ts';
import { s3Failure } from './s3.ts';
import { Terminal } from './types.ts';

export const OBJECTS = { config: 'adapter_config.json', tensors: 'adapter_model.safetensors' } as const;

interface ObjectInput {
  Bucket: string;
  Key: string;
  VersionId?: string;
}

/** Which object, and how to call it in a message. */
export function objectAt(location: Location, which: keyof typeof OBJECTS): ObjectInput {
  const isVersioned = which === 'tensors' && location.versionId !== null;
  return {
    Bucket: location.bucket,
    Key: `${location.prefix}${OBJECTS[which]}`,
    ...(isVersioned ? { VersionId: location.versionId as string } : {}),
  };
}

/** What the store holds now. */
export async function head(
  client: S3Client,
  location: Location,
  which: keyof typeof OBJECTS,
  signal: AbortSignal,
  ifMatch?: string,
): Promise<{ etag: string; size: number }> {
  const input = {
    ...objectAt(location, which),
    ...(ifMatch === undefined ? {} : { IfMatch: `"${ifMatch}"` }),
  };
  const reply = await client.send(new HeadObjectCommand(input), { abortSignal: signal }).catch((error) => {
    throw s3Failure(error, OBJECTS[which], signal);
  });
  const etag = /^"([!#-+\--~]{1,200})"$/.exec(reply.ETag ?? '')?.[1];
  if (etag === undefined || reply.ContentLength === undefined) {
    throw new Terminal(
      'SourceInvalid',
      `The object store names no strong ETag and size for ${OBJECTS[which]}.`,
    );
  }
  return { etag, size: reply.ContentLength };
}

/** One object in one version: where the store has another by now, every read fails with SourceChanged. */
export class PinnedObject {
  readonly size: number;
  readonly #client: S3Client;
  readonly #input: ObjectInput & { IfMatch: string };
  readonly #what: string;
  readonly #limits: RangeLimits;

  constructor(
    client: S3Client,
    object: { location: Location; which: keyof typeof OBJECTS; etag: string; size: number },
    limits: RangeLimits,
  ) {
    this.size = object.size;
    this.#client = client;
    this.#input = { ...objectAt(object.location, object.which), IfMatch: `"${object.etag}"` };
    this.#what = OBJECTS[object.which];
    this.#limits = limits;
  }

  bytes(begin: number, end: number, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const open = (from: number, to: number, life: AbortSignal) => this.#open(from, to, life);
    return readRanges(open, { begin, end }, this.#limits, signal);
  }

  async buffer(begin: number, end: number, signal: AbortSignal): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    for await (const part of this.bytes(begin, end, signal)) parts.push(part);
    return Buffer.concat(parts);
  }

  async #open(begin: number, end: number, signal: AbortSignal): Promise<Readable> {
    const command = new GetObjectCommand({ ...this.#input, Range: `bytes=${begin}-${end - 1}` });
    const reply = await this.#client.send(command, { abortSignal: signal }).catch((error) => {
      throw s3Failure(error, this.#what, signal);
    });
    const body = reply.Body as Readable;
    if (isRange(reply, begin, end)) return body;
    body.destroy();
    throw new Terminal(
      'SourceInvalid',
      `The object store does not answer ranges of ${this.#what} as it was asked.`,
    );
  }
}

function isRange(
  { ContentRange, ContentLength }: GetObjectCommandOutput,
  begin: number,
  end: number,
): boolean {
  if (ContentLength !== end - begin) return false;
  return ContentRange === undefined ? begin === 0 : ContentRange.startsWith(`bytes ${begin}-${end - 1}/`);
}
