import { LorikeetError } from '../contract/errors.ts';
import { parseAdapterConfig } from '../contract/format/adapter-config.ts';
import type { ModuleName } from '../contract/format/bind.ts';
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

/** What SGLang computes as one matrix, by what it needs of it in a layer where any of it is adapted. */
const FUSED: { parts: ModuleName[]; needed: ModuleName[] }[] = [
  { parts: ['q_proj', 'k_proj', 'v_proj'], needed: ['q_proj', 'v_proj'] },
  { parts: ['gate_proj', 'up_proj'], needed: ['gate_proj'] },
];

/**
 * Refuses what ends an SGLang at the first request for it: an adapter of a part of q, k and v, or of up without gate. Throws
 * `unsupported_adapter_feature`.
 */
export function requireFusible({ bound }: Pick<Content, 'bound'>): void {
  const layers = Map.groupBy(bound.modules, ({ layer }) => layer);
  for (const [layer, modules] of layers) {
    const adapted = new Set(modules.map(({ module }) => module));
    for (const { parts, needed } of FUSED) {
      const missing = needed.find((module) => !adapted.has(module));
      const part = parts.find((module) => adapted.has(module));
      if (missing === undefined || part === undefined) continue;
      throw new LorikeetError(
        'unsupported_adapter_feature',
        `Expected ${modulePath(layer, missing)} beside ${modulePath(layer, part)}, as the engine computes ${parts.join(', ')} as one`,
        { field: 'target_modules', expected: missing, actual: part },
      );
    }
  }
}

/**
 * The same adapter_config.json in the words that every engine reads: modules by their names instead of a pattern, and of
 * rsLoRA, of which SGLang reads nothing, the `lora_alpha` that comes to the same scale.
 */
export function inPlainWords({ config, bound }: Pick<Content, 'config' | 'bound'>): Buffer {
  const { r, loraAlpha, useRslora } = parseAdapterConfig(config);
  const said = JSON.parse(config.toString('utf8')) as { target_modules?: unknown };
  const isNamed = Array.isArray(said.target_modules);
  if (isNamed && !useRslora) return config;
  const plain = {
    ...said,
    ...(!isNamed && { target_modules: [...new Set(bound.modules.map(({ module }) => module))] }),
    ...(useRslora && { use_rslora: false, lora_alpha: loraAlpha * Math.sqrt(r) }),
  };
  return Buffer.from(JSON.stringify(plain));
}
