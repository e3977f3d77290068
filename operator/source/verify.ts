import { type ErrorCode, LorikeetError } from '../../server/contract/errors.ts';
import type { AdapterConfig } from '../../server/contract/format/adapter-config.ts';
import { bindAdapter } from '../../server/contract/format/bind.ts';
import { parseHeader, type SafetensorsHeader } from '../../server/contract/format/safetensors.ts';
import { type FetchLimits, type SourcedAdapter, type SourceReason, Terminal } from './types.ts';

export interface Shape {
  rank: number;
  targetModules: string[];
}

type Expectations = SourcedAdapter['spec']['verify'];

/**
 * Checks what the first kilobytes tell: form, fit to the base model, and spec.verify. Throws LorikeetError; returns null
 * for a shape that cannot be known without a geometry.
 */
export function checkHeader(
  headerBytes: Uint8Array,
  configOf: (header: SafetensorsHeader) => AdapterConfig,
  fit: FetchLimits['fit'],
  expected: Expectations,
): { header: SafetensorsHeader; config: AdapterConfig; shape: Shape | null } {
  const header = parseHeader(headerBytes);
  const config = configOf(header);
  if (fit === null) return { header, config, shape: null };
  const bound = bindAdapter(config, header, fit);
  const shape = { rank: bound.rank, targetModules: [...bound.targetModules].sort() };
  requireExpectedShape(shape, expected);
  return { header, config, shape };
}

function requireExpectedShape(shape: Shape, expected: Expectations): void {
  if (expected?.rank !== undefined && expected.rank !== shape.rank) {
    throw new LorikeetError(
      'rank_mismatch',
      `spec.verify expects rank ${expected.rank} but the adapter has ${shape.rank}`,
      {
        field: 'spec.verify.rank',
        expected: expected.rank,
        actual: shape.rank,
      },
    );
  }
  const modules = expected?.targetModules && [...expected.targetModules].sort();
  if (modules !== undefined && modules.join() !== shape.targetModules.join()) {
    throw new LorikeetError(
      'unexpected_tensor',
      'The modules that carry tensors are not what spec.verify expects',
      {
        field: 'spec.verify.targetModules',
        expected: modules,
        actual: shape.targetModules,
      },
    );
  }
}

/** `tensorsSha256`: lower-case hex of the whole safetensors file. */
export function requireExpectedSha256(tensorsSha256: string, expected: Expectations): void {
  if (expected?.sha256 === undefined || expected.sha256 === tensorsSha256) return;
  throw new LorikeetError('digest_mismatch', 'The tensors are not what spec.verify expects', {
    field: 'spec.verify.sha256',
    expected: expected.sha256,
    actual: tensorsSha256,
  });
}

const REASON_OF: Partial<Record<ErrorCode, SourceReason>> = {
  malformed_safetensors: 'AdapterMalformed',
  malformed_config: 'AdapterMalformed',
  missing_config: 'AdapterMalformed',
  unsupported_adapter_feature: 'AdapterUnsupported',
  unsupported_dtype: 'AdapterUnsupported',
  rank_too_large: 'RankTooLarge',
  body_too_large: 'AdapterTooLarge',
  digest_mismatch: 'DigestMismatch',
};

/** A refusal of the content as the error of a source: the same object will be refused again. */
export function misfit(error: unknown): Error {
  if (!(error instanceof LorikeetError)) return error instanceof Error ? error : new Error(String(error));
  if (error.field === 'spec.verify.rank') return new Terminal('RankMismatch', error.message, error);
  if (error.field === 'spec.verify.targetModules') {
    return new Terminal('TargetModulesMismatch', error.message, error);
  }
  return new Terminal(REASON_OF[error.code] ?? 'AdapterIncompatible', error.message, error);
}
