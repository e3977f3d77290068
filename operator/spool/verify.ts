import { expected } from '../../server/contract/errors.ts';
import type { AdapterConfig } from '../../server/contract/format/adapter-config.ts';
import { type BindLimits, bindAdapter } from '../../server/contract/format/bind.ts';
import type { SafetensorsHeader } from '../../server/contract/format/safetensors.ts';

export interface Shape {
  rank: number;
  targetModules: string[];
}

/** What spec.verify wants an adapter to be. */
type Expectations =
  | { sha256?: string | undefined; rank?: number | undefined; targetModules?: string[] | undefined }
  | undefined;

/**
 * Checks what the first kilobytes tell: fit to the base model, and spec.verify. Returns null for a shape that cannot be
 * known without a geometry.
 */
export function checkHeader(
  header: SafetensorsHeader,
  config: AdapterConfig,
  fit: BindLimits | null,
  verify: Expectations,
): Shape | null {
  if (fit === null) return null;
  const bound = bindAdapter(config, header, fit);
  const shape = { rank: bound.rank, targetModules: [...bound.targetModules].sort() };
  requireExpectedShape(shape, verify);
  return shape;
}

function requireExpectedShape(shape: Shape, verify: Expectations): void {
  const rank = verify?.rank ?? shape.rank;
  if (rank !== shape.rank) {
    throw expected('verification_failed', 'spec.verify.rank', { words: `${rank}`, value: rank }, shape.rank);
  }
  const modules = [...(verify?.targetModules ?? shape.targetModules)].sort();
  if (modules.join() !== shape.targetModules.join()) {
    const want = { words: modules.join(', '), value: modules };
    throw expected('verification_failed', 'spec.verify.targetModules', want, shape.targetModules);
  }
}

/** `tensorsSha256`: lower-case hex of the whole safetensors file. */
export function requireExpectedSha256(tensorsSha256: string, verify: Expectations): void {
  requireSha256('spec.verify.sha256', verify?.sha256, tensorsSha256);
}

/** `field`: of the spec, that wants `sha256`; undefined: any. */
export function requireSha256(field: string, sha256: string | undefined, tensorsSha256: string): void {
  if (sha256 === undefined || sha256 === tensorsSha256) return;
  throw expected('verification_failed', field, sha256, tensorsSha256);
}
