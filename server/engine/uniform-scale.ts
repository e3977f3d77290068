import { LorikeetError } from '../contract/errors.ts';
import { parseAdapterConfig } from '../contract/format/adapter-config.ts';
import { modulePath } from '../contract/format/tensor-names.ts';
import type { Content } from './port.ts';

/** Of float64 roundings on the way to a scale. */
const TOLERANCE = 1e-9;

/**
 * Refuses what SGLang and older vLLMs would serve wrong: they scale all modules alike, by `lora_alpha / r` (of the root of `r`
 * under rsLoRA) of adapter_config.json, whatever its rank_pattern and alpha_pattern say. Throws
 * `unsupported_adapter_feature` with the first module that has another scale.
 */
export function requireUniformScale({ config, bound }: Pick<Content, 'config' | 'bound'>): void {
  const { r, loraAlpha, useRslora, rankPattern } = parseAdapterConfig(config);
  const scale = loraAlpha / (useRslora ? Math.sqrt(r) : r);
  const other = bound.modules.find((module) => Math.abs(module.scale - scale) > TOLERANCE * Math.abs(scale));
  if (other === undefined) return;
  const field = rankPattern.length > 0 ? 'rank_pattern' : 'alpha_pattern';
  const path = modulePath(other.layer, other.module);
  throw new LorikeetError(
    'unsupported_adapter_feature',
    `Expected one scale for all modules, ${scale} of r and lora_alpha, as the engine knows no ${field}, but ${path} has ${other.scale}`,
    { field, expected: scale, actual: other.scale },
  );
}
