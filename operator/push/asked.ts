import type { IncomingMessage } from 'node:http';
import { MEDIA_TYPE } from '../../server/contract/adapter-api.ts';
import { expected } from '../../server/contract/errors.ts';
import {
  readAllow,
  readConfig,
  readContentDigest,
  readContentLength,
  readIfMatch,
  readStep,
  requireContentType,
} from '../../server/contract/headers.ts';

/** What the request line and the headers of a push say; nothing of its body has been read. */
export interface Asked {
  /** Content-Length; null for a chunked body. */
  declaredBytes: number | null;
  /** The header's value as it came. */
  config: string | undefined;
  step: number | null;
  /** A digest, or `*`. */
  ifMatch: string | null;
  allow: string[];
  /** Lower-case hex that the whole body must have. */
  sha256: string | null;
  wait: 'staged' | 'active';
  /** For what comes after the last byte: stage and activate. */
  timeoutMs: number;
}

const MEDIA_TYPES = [MEDIA_TYPE, 'application/vnd.safetensors'];
const TIMEOUT_MS_DEFAULT = 30_000;
const TIMEOUT_MS_MAX = 600_000;
const UNIT_MS: Record<string, number> = { ms: 1, s: 1_000, m: 60_000 };

export function readAsked(raw: Pick<IncomingMessage, 'headers' | 'headersDistinct'>, query: unknown): Asked {
  const { headers, headersDistinct } = raw;
  requireContentType(headersDistinct, MEDIA_TYPES);
  const parameters = (query ?? {}) as Record<string, unknown>;
  return {
    declaredBytes: readContentLength(headers),
    config: readConfig(headers),
    step: readStep(headers),
    ifMatch: readIfMatch(headers),
    allow: readAllow(headers),
    sha256: readContentDigest(headers),
    wait: readWait(parameters.wait),
    timeoutMs: readTimeout(parameters.timeout),
  };
}

function readWait(value: unknown): 'staged' | 'active' {
  if (value === undefined) return 'active';
  if (value === 'staged' || value === 'active') return value;
  throw expected('malformed_request', 'wait', 'staged or active', value);
}

export function readTimeout(value: unknown): number {
  if (value === undefined) return TIMEOUT_MS_DEFAULT;
  const [, number, unit] = /^([0-9]{1,6})(ms|s|m)$/.exec(String(value)) ?? [];
  const timeoutMs = Number(number) * (UNIT_MS[unit ?? ''] ?? Number.NaN);
  if (timeoutMs >= 1 && timeoutMs <= TIMEOUT_MS_MAX) return timeoutMs;
  throw expected('malformed_request', 'timeout', '1ms to 10m, such as 30s', value);
}
