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
import type { AwsIdentity } from './aws-identity.ts';
import { noAnswerOf } from './no-answer.ts';
import {
  type NewObject,
  OBJECTS,
  type ObjectKey,
  type ObjectStore,
  type Span,
  type StoredObject,
} from './port.ts';
import type { Access } from './s3-access.ts';
import { type Dialect, type Location, locationOf, S3 } from './s3-location.ts';
import type { ReadAccess } from './secret-access.ts';
import { Retryable, type SourcedAdapter, SourceError, Terminal } from './types.ts';

export interface S3Options {
  readAccess: ReadAccess<Access>;
  guard: AddressGuard;
  /** Default: S3's own. */
  dialect?: Dialect;
  /**
   * The operator's own, for what is read without credentialsSecretRef and without endpoint. Null: such an adapter is read
   * anonymously, for whoever may write a LoraAdapter would otherwise read every bucket that the operator may read.
   */
  ambient: AwsIdentity | null;
  connectTimeoutMs: number;
}

/** Of AWS itself. */
const HTTPS_PORT = 443;
const say = () => {};
/** Without one the SDK writes some of its warnings to the console; what matters of them is in the errors that it throws. */
const SILENT = { trace: say, debug: say, info: say, warn: say, error: say };

/** s3://, and gs:// for those who speak the same. */
export async function openS3(
  adapter: SourcedAdapter,
  options: S3Options,
  signal: AbortSignal,
): Promise<ObjectStore> {
  const { dialect = S3 } = options;
  const location = locationOf(adapter, dialect);
  const endpoint = location.endpoint === null ? null : new URL(location.endpoint);
  if (endpoint !== null) await options.guard.requireAllowed(endpoint);
  const access = location.secret && (await options.readAccess(location.secret, signal));
  const ambient = location.secret === null && location.endpoint === null ? options.ambient : null;
  const credentials = access?.credentials ?? ambient;
  const lookup = options.guard.lookupFor(endpoint === null ? HTTPS_PORT : portOf(endpoint));
  const agent = { keepAlive: true, maxSockets: 8, lookup };
  const client = new S3Client({
    region: location.region,
    ...(location.endpoint === null ? {} : { endpoint: location.endpoint, forcePathStyle: true }),
    ...(credentials === null ? anonymous : { credentials }),
    // Not AWS_ENDPOINT_URL of the operator's environment: the spec says where.
    ignoreConfiguredEndpointUrls: true,
    followRegionRedirects: false,
    maxAttempts: 1,
    // The checking stream of the SDK swallows aborts; our own sha256 covers the whole file.
    responseChecksumValidation: 'WHEN_REQUIRED',
    // Else a body whose sum comes after it, which not every store takes.
    requestChecksumCalculation: 'WHEN_REQUIRED',
    logger: SILENT,
    requestHandler: {
      httpAgent: new HttpAgent(agent),
      httpsAgent: new HttpsAgent({ ...agent, ...(access?.ca && { ca: [...rootCertificates, access.ca] }) }),
      connectionTimeout: options.connectTimeoutMs,
    },
  });
  if (dialect.versionQuery !== S3.versionQuery) renameVersion(client, dialect.versionQuery);
  const isSigned = credentials !== null;
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
    const { scheme, bucket, prefix } = this.#location;
    return `${scheme}://${bucket}/${prefix}${key}`;
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

/** Before the request is signed. */
function renameVersion(client: S3Client, name: string): void {
  const rename = (query: Record<string, unknown>) => {
    const { versionId, ...others } = query;
    return versionId === undefined ? query : { ...others, [name]: versionId };
  };
  client.middlewareStack.add(
    (next) => async (handed) => {
      const request = handed.request as { query: Record<string, unknown> };
      request.query = rename(request.query);
      return await next(handed);
    },
    { step: 'build', name: 'renameVersion' },
  );
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
      return noAnswerOf(error, name);
    default:
      return new Retryable('SourceUnreachable', `The object store fails (${status}): ${name}.`);
  }
}

function statusOf(error: unknown): number | undefined {
  return error instanceof S3ServiceException ? error.$metadata.httpStatusCode : undefined;
}
