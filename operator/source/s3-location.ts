import { endpointOf } from './endpoint.ts';
import { type SourcedAdapter, Terminal } from './types.ts';

/** Who speaks S3, and in which words. */
export interface Dialect {
  scheme: string;
  bucket: RegExp;
  /** Where the spec names none; null: the SDK knows. */
  endpoint: string | null;
  region: string;
  /** What the query calls a version. */
  versionQuery: string;
}

export const S3: Dialect = {
  scheme: 's3',
  bucket: /^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/,
  endpoint: null,
  region: 'us-east-1',
  versionQuery: 'versionId',
};

/** The interoperability of Google Cloud Storage, which signs with the HMAC keys of a service account. */
export const GS: Dialect = {
  scheme: 'gs',
  bucket: /^[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]$/,
  endpoint: 'https://storage.googleapis.com/',
  region: 'auto',
  versionQuery: 'generation',
};

export interface Location {
  scheme: string;
  bucket: string;
  /** Empty, or ends with a slash. */
  prefix: string;
  versionId: string | null;
  /** Normalised by the one URL parser that also makes the connection; null = AWS itself. */
  endpoint: string | null;
  region: string;
  /** Null = no credentials named. */
  secret: { namespace: string; name: string } | null;
}

const REGION = /^[a-z0-9-]{1,63}$/;
const KEY_LENGTH_MAX = 1000;
const VERSION_LENGTH_MAX = 1024;

/** Where the spec says the adapter is; throws Terminal SourceInvalid and never repeats a value that may hold a secret. */
export function locationOf(adapter: SourcedAdapter, dialect: Dialect): Location {
  const spec = adapter.spec.source.objectStore;
  if (!spec) throw invalid('Expected spec.source.objectStore.');
  const { bucket, prefix } = placeOf(spec.uri, dialect);
  const region = spec.region || dialect.region;
  if (!REGION.test(region)) throw invalid('Expected lower-case letters, digits and "-" for region.');
  const versionId = spec.versionId || null;
  if (versionId !== null && versionId.length > VERSION_LENGTH_MAX) {
    throw invalid(`Expected at most ${VERSION_LENGTH_MAX} characters for versionId.`);
  }
  const namespace = adapter.metadata.namespace ?? '';
  return {
    scheme: dialect.scheme,
    bucket,
    prefix,
    versionId,
    endpoint: endpointOf(spec.endpoint) ?? dialect.endpoint,
    region,
    secret: spec.credentialsSecretRef ? { namespace, name: spec.credentialsSecretRef.name } : null,
  };
}

function placeOf(uri: string, { scheme, bucket: pattern }: Dialect): { bucket: string; prefix: string } {
  const [, named, bucket = '', path = ''] = /^([a-z0-9]+):\/\/([^/]*)\/?(.*)$/s.exec(uri) ?? [];
  if (named !== scheme) throw invalid(`Expected a uri of the form ${scheme}://bucket/prefix/.`);
  if (!pattern.test(bucket))
    throw invalid('Expected a bucket name of 3 to 63 lower-case letters, digits, "." and "-".');
  return { bucket, prefix: prefixOf(path) };
}

/** Empty, or ends with a slash. */
export function prefixOf(path: string): string {
  if (path.length > KEY_LENGTH_MAX)
    throw invalid(`Expected a prefix of at most ${KEY_LENGTH_MAX} characters.`);
  const hasControl = [...path].some((character) => character < ' ' || character === '\u007f');
  const climbs = path.split('/').some((part) => part === '.' || part === '..');
  if (hasControl || climbs) throw invalid('Expected a prefix without control characters, "." and "..".');
  return path === '' || path.endsWith('/') ? path : `${path}/`;
}

function invalid(message: string): Terminal {
  return new Terminal('SourceInvalid', message);
}
