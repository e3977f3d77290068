import { LorikeetError } from '../contract/errors.ts';
import { parseAdapterConfig } from '../contract/format/adapter-config.ts';
import { modulePath } from '../contract/format/tensor-names.ts';
import type { Content } from './port.ts';

/** Of float64 roundings on the way to a scale. */
const TOLERANCE = 1e-9;

/**
 * Refuses what SGLang and older vLLMs would serve wrong or end on: they take all modules to be of the rank and scale that
 * `r` and `lora_alpha` of adapter_config.json say, whatever its rank_pattern and alpha_pattern say. Throws
 * `unsupported_adapter_feature` with the first module that has another.
 */
export function requireUniform({ config, bound }: Pick<Content, 'config' | 'bound'>): void {
  const { r, loraAlpha, useRslora, rankPattern } = parseAdapterConfig(config);
  const scale = loraAlpha / (useRslora ? Math.sqrt(r) : r);
  const field = rankPattern.length > 0 ? 'rank_pattern' : 'alpha_pattern';
  for (const { layer, module, rank, scale: own } of bound.modules) {
    const isScale = Math.abs(own - scale) <= TOLERANCE * Math.abs(scale);
    if (isScale && rank === r) continue;
    const [what, expected, actual] = isScale ? ['rank', r, rank] : ['scale', scale, own];
    throw new LorikeetError(
      'unsupported_adapter_feature',
      `Expected one ${what} for all modules, ${expected} of r and lora_alpha, as the engine knows no ${field}, but ${modulePath(layer, module)} has ${actual}`,
      { field, expected, actual },
    );
  }
}

/** For engines that scale by `lora_alpha / r` without a look at use_rslora: the same scale in these words. */
export function withoutRslora(config: Buffer): Buffer {
  const { r, loraAlpha, useRslora } = parseAdapterConfig(config);
  if (!useRslora) return config;
  const said = JSON.parse(config.toString('utf8')) as object;
  return Buffer.from(JSON.stringify({ ...said, use_rslora: false, lora_alpha: loraAlpha * Math.sqrt(r) }));
}
