import { Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import { Readable } from 'node:stream';
import { rootCertificates } from 'node:tls';
import {
  GetObjectCommand,
  type GetObjectCommandOutput,
  HeadObjectCommand,
  PutObjectCommand,
  S3Client,
  S3ServiceException,
} from '@aws-sdk/client-s3';
import { type AddressGuard, portOf } from './address-guard.ts';
import { noAnswer } from './no-answer.ts';
import {
  type NewObject,
  OBJECTS,
  type ObjectKey,
  type ObjectStore,
  type Span,
  type StoredObject,
} from './port.ts';
import type { ReadAccess } from './s3-access.ts';
import { type Location, locationOf } from './s3-location.ts';
import { Retryable, type SourcedAdapter, SourceError, Terminal } from './types.ts';

export interface S3Options {
  readAccess: ReadAccess;
  guard: AddressGuard;
  /**
   * Without credentialsSecretRef and without endpoint, read with the operator's own AWS identity (the SDK's default
   * chain: IRSA, EKS Pod Identity, environment). Off, such an adapter is read anonymously: whoever may write a
   * LoraAdapter would otherwise read every bucket that the operator may read.
   */
  ambientCredentials: boolean;
  connectTimeoutMs: number;
}

/** Of AWS itself. */
const HTTPS_PORT = 443;

/** s3:// */
export async function openS3(
  adapter: SourcedAdapter,
  options: S3Options,
  signal: AbortSignal,
): Promise<ObjectStore> {
  const location = locationOf(adapter);
  const endpoint = location.endpoint === null ? null : new URL(location.endpoint);
  if (endpoint !== null) await options.guard.requireAllowed(endpoint);
  const access = location.secret && (await options.readAccess(location.secret, signal));
  const credentials = access?.credentials ?? null;
  const ambient = credentials === null && location.endpoint === null && options.ambientCredentials;
  const lookup = options.guard.lookupFor(endpoint === null ? HTTPS_PORT : portOf(endpoint));
  const agent = { keepAlive: true, maxSockets: 8, lookup };
  const client = new S3Client({
    region: location.region,
    ...(location.endpoint === null ? {} : { endpoint: location.endpoint, forcePathStyle: true }),
    ...(credentials === null ? {} : { credentials }),
    ...(credentials === null && !ambient ? anonymous : {}),
    // Not AWS_ENDPOINT_URL of the operator's environment: the spec says where.
    ignoreConfiguredEndpointUrls: true,
    followRegionRedirects: false,
    maxAttempts: 1,
    // The checking stream of the SDK swallows aborts; our own sha256 covers the whole file.
    responseChecksumValidation: 'WHEN_REQUIRED',
    // Else a body whose sum comes after it, which not every store takes.
    requestChecksumCalculation: 'WHEN_REQUIRED',
    requestHandler: {
      httpAgent: new HttpAgent(agent),
      httpsAgent: new HttpsAgent({ ...agent, ...(access?.ca && { ca: [...rootCertificates, access.ca] }) }),
      connectionTimeout: options.connectTimeoutMs,
    },
  });
  const isSigned = credentials !== null || ambient;
  return new S3Store(client, { location, isSigned });
}

class S3Store implements ObjectStore {
  readonly #client: S3Client;
  readonly #location: Location;
  readonly #isSigned: boolean;

  constructor(client: S3Client, { location, isSigned }: { location: Location; isSigned: boolean }) {
    this.#client = client;
    this.#location = location;
    this.#isSigned = isSigned;
  }

  async head(key: ObjectKey, signal: AbortSignal): Promise<StoredObject> {
    const command = new HeadObjectCommand(this.#inputOf(key));
    const reply = await this.#client.send(command, { abortSignal: signal }).catch(async (error) => {
      throw await this.#failure(error, key, signal);
    });
    const etag = /^"([!#-+\--~]{1,200})"$/.exec(reply.ETag ?? '')?.[1];
    if (etag === undefined || reply.ContentLength === undefined) {
      throw new Terminal(
        'SourceInvalid',
        `The object store names no strong ETag and size for ${this.#nameOf(key)}.`,
      );
    }
    return { key, version: etag, size: reply.ContentLength };
  }

  async open({ key, version }: StoredObject, span: Span, signal: AbortSignal): Promise<Readable> {
    const pinned = { IfMatch: `"${version}"`, Range: `bytes=${span.begin}-${span.end - 1}` };
    const command = new GetObjectCommand({ ...this.#inputOf(key), ...pinned });
    const reply = await this.#client.send(command, { abortSignal: signal }).catch(async (error) => {
      throw await this.#failure(error, key, signal);
    });
    const body = reply.Body as Readable;
    if (isRange(reply, span)) return body;
    body.destroy();
    const message = `The object store does not answer ranges as it was asked: ${this.#nameOf(key)}.`;
    throw new Terminal('SourceInvalid', message);
  }

  async write({ key, size, body }: NewObject, signal: AbortSignal): Promise<void> {
    const command = new PutObjectCommand({
      ...this.#inputOf(key),
      Body: Readable.from(body),
      ContentLength: size,
    });
    await this.#client.send(command, { abortSignal: signal }).catch(async (error) => {
      throw await this.#failure(error, key, signal);
    });
  }

  close(): void {
    this.#client.destroy();
  }

  #nameOf(key: ObjectKey): string {
    const { bucket, prefix } = this.#location;
    return `s3://${bucket}/${prefix}${key}`;
  }

  async #failure(error: unknown, key: ObjectKey, signal: AbortSignal): Promise<Error> {
    const isMissing = statusOf(error) === 404 && !signal.aborted;
    if (isMissing && (await this.#lacksBucket(key, signal))) {
      return new Retryable('SourceNotFound', `There is no bucket ${this.#location.bucket}.`);
    }
    return s3Failure(error, { name: this.#nameOf(key), isSigned: this.#isSigned }, signal);
  }

  /** The answer to HEAD has no body, and so no code that tells a missing object from a missing bucket. */
  async #lacksBucket(key: ObjectKey, signal: AbortSignal): Promise<boolean> {
    const command = new GetObjectCommand({ ...this.#inputOf(key), Range: 'bytes=0-0' });
    try {
      const { Body } = await this.#client.send(command, { abortSignal: signal });
      (Body as Readable).destroy();
      return false;
    } catch (error) {
      return error instanceof S3ServiceException && error.name === 'NoSuchBucket';
    }
  }

  #inputOf(key: ObjectKey): { Bucket: string; Key: string; VersionId?: string } {
    const { bucket, prefix, versionId } = this.#location;
    const isVersioned = key === OBJECTS.tensors && versionId !== null;
    return { Bucket: bucket, Key: `${prefix}${key}`, ...(isVersioned ? { VersionId: versionId } : {}) };
  }
}

function isRange({ ContentRange, ContentLength }: GetObjectCommandOutput, { begin, end }: Span): boolean {
  if (ContentLength !== end - begin) return false;
  return ContentRange === undefined ? begin === 0 : ContentRange.startsWith(`bytes ${begin}-${end - 1}/`);
}

const anonymous = {
  credentials: { accessKeyId: 'anonymous', secretAccessKey: 'anonymous' },
  signer: { sign: async <T>(request: T): Promise<T> => request },
};

/** The SDK's error as ours. Its message and cause may hold signed headers and the endpoint's own text: both are dropped. */
function s3Failure(
  error: unknown,
  { name, isSigned }: { name: string; isSigned: boolean },
  signal: AbortSignal,
): Error {
  if (signal.aborted) return signal.reason;
  if (error instanceof SourceError) return error;
  const refused = causesOf(error).find((cause) => cause instanceof SourceError);
  if (refused) return refused;
  const status = statusOf(error);
  const how = isSigned ? '' : 'to a request that nothing signs (spec.source names no credentialsSecretRef) ';
  switch (status) {
    case 404:
      return new Retryable('SourceNotFound', `There is no ${name}.`);
    case 401:
    case 403:
      return new Retryable('SourceAccessDenied', `The object store denies access ${how}to ${name}.`);
    case 412:
      return new Retryable('SourceChanged', `The object was overwritten while it was read: ${name}.`);
    case 416:
      return new Terminal('AdapterMalformed', `The object is empty or shorter than it was: ${name}.`);
    case 301:
    case 307:
    case 400:
      return new Terminal(
        'SourceInvalid',
        `The object store refuses the request (${status}): wrong region, bucket or version? ${name}`,
      );
    case undefined:
      return unanswered(codeOf(error), name);
    default:
      return new Retryable('SourceUnreachable', `The object store fails (${status}): ${name}.`);
  }
}

/** Of TLS: who signed the certificate of the store is not known. */
const UNTRUSTED = new Set([
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
]);

function unanswered(code: string, name: string): Retryable {
  if (!UNTRUSTED.has(code)) return noAnswer(code);
  const way = 'Put the CA of the store under ca.crt into the Secret of credentialsSecretRef.';
  return new Retryable('SourceUnreachable', `The object store is not trusted (${code}): ${name}. ${way}`);
}

function statusOf(error: unknown): number | undefined {
  return error instanceof S3ServiceException ? error.$metadata.httpStatusCode : undefined;
}

/** A code of the system such as ECONNREFUSED; never text. */
function codeOf(error: unknown): string {
  const codes = causesOf(error).map((cause) => (cause as NodeJS.ErrnoException).code);
  return codes.find((code) => typeof code === 'string' && /^[A-Z_]{3,40}$/.test(code)) ?? 'no answer';
}

function causesOf(error: unknown): unknown[] {
  const causes: unknown[] = [];
  let current = error;
  while (current instanceof Error && causes.length < 8) {
    causes.push(current);
    current = current.cause;
  }
  return causes;
}
