import { createHash } from 'node:crypto';

/** JSON with sorted keys and no white space (RFC 8785 for the values that adapter_config.json can hold). */
export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`;
  if (value !== null && typeof value === 'object') {
    const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
    return `{${entries.map(([key, item]) => `${JSON.stringify(key)}:${canonicalJson(item)}`).join(',')}}`;
  }
  return JSON.stringify(value);
}

/**
 * The identity of a revision:
 * `sha256:` of "lora-v1\n" + sha256hex(canonical config JSON) + "\n" + sha256hex(safetensors bytes) + "\n".
 * `tensorsSha256` is the lower-case hex of the whole safetensors file, header included.
 */
export function revisionDigest(config: unknown, tensorsSha256: string): string {
  const configSha256 = createHash('sha256').update(canonicalJson(config)).digest('hex');
  const identity = `lora-v1\n${configSha256}\n${tensorsSha256}\n`;
  return `sha256:${createHash('sha256').update(identity).digest('hex')}`;
}
