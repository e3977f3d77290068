import { type SourcedAdapter, Terminal } from './types.ts';

type ObjectStoreSpec = NonNullable<SourcedAdapter['spec']['source']['objectStore']>;

export interface Location {
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

const BUCKET = /^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/;
const REGION = /^[a-z0-9-]{1,63}$/;
const KEY_LENGTH_MAX = 1000;
const VERSION_LENGTH_MAX = 1024;
const REGION_DEFAULT = 'us-east-1';

/** Where the spec says the adapter is; throws Terminal SourceInvalid and never repeats a value that may hold a secret. */
export function locationOf(adapter: SourcedAdapter): Location {
  const spec = adapter.spec.source.objectStore;
  if (!spec) throw invalid('Expected spec.source.objectStore.');
  const { bucket, prefix } = placeOf(spec.uri);
  const region = spec.region || REGION_DEFAULT;
  if (!REGION.test(region)) throw invalid('Expected lower-case letters, digits and "-" for region.');
  const versionId = spec.versionId || null;
  if (versionId !== null && versionId.length > VERSION_LENGTH_MAX) {
    throw invalid(`Expected at most ${VERSION_LENGTH_MAX} characters for versionId.`);
  }
  const namespace = adapter.metadata.namespace ?? '';
  return {
    bucket,
    prefix,
    versionId,
    endpoint: endpointOf(spec),
    region,
    secret: spec.credentialsSecretRef ? { namespace, name: spec.credentialsSecretRef.name } : null,
  };
}

function placeOf(uri: string): { bucket: string; prefix: string } {
  const match = /^s3:\/\/([^/]*)\/?(.*)$/s.exec(uri);
  if (!match) throw invalid('Expected a uri of the form s3://bucket/prefix/.');
  const [, bucket = '', path = ''] = match;
  if (!BUCKET.test(bucket))
    throw invalid('Expected a bucket name of 3 to 63 lower-case letters, digits, "." and "-".');
  if (path.length > KEY_LENGTH_MAX)
    throw invalid(`Expected a prefix of at most ${KEY_LENGTH_MAX} characters.`);
  const hasControl = [...path].some((character) => character < ' ' || character === '\u007f');
  const climbs = path.split('/').some((part) => part === '.' || part === '..');
  if (hasControl || climbs) throw invalid('Expected a prefix without control characters, "." and "..".');
  return { bucket, prefix: path === '' || path.endsWith('/') ? path : `${path}/` };
}

function endpointOf({ endpoint }: ObjectStoreSpec): string | null {
  if (!endpoint) return null;
  if (!URL.canParse(endpoint)) throw invalid('Expected a URL for endpoint.');
  const url = new URL(endpoint);
  if (url.protocol !== 'http:' && url.protocol !== 'https:')
    throw invalid('Expected an http or https endpoint.');
  if (url.username || url.password || url.search || url.hash) {
    throw invalid('Expected an endpoint without user, password, query and fragment.');
  }
  return url.href;
}

function invalid(message: string): Terminal {
  return new Terminal('SourceInvalid', message);
}
