import { AdapterName, DIGEST_PATTERN, NAME_LENGTH_MAX, NAME_PATTERN } from '../contract/adapter-api.ts';
import { expected } from '../contract/errors.ts';

export function readName(name: string): string {
  if (AdapterName.safeParse(name).success) return name;
  const want = `at most ${NAME_LENGTH_MAX} characters that match ${NAME_PATTERN.source}`;
  throw expected('invalid_name', 'name', want, name);
}

export function readDigest(digest: string): string {
  if (DIGEST_PATTERN.test(digest)) return digest;
  throw expected('malformed_request', 'digest', 'sha256: and 64 hexadecimal digits', digest);
}
