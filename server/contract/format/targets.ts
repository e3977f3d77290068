import { expected } from '../errors.ts';
import type { PatternCompiler } from './patterns.ts';

export interface ModuleSelection {
  targetModules: string[] | string;
  excludeModules: string[] | string | null;
  layersToTransform: number[] | null;
  layersPattern: string[];
}

/**
 * PEFT's `check_target_module_exists` over module paths such as `model.layers.0.self_attn.q_proj`: exclusion first,
 * then a whole-path pattern or names as suffixes, and for names the layers.
 */
export function moduleSelector(
  selection: ModuleSelection,
  compiler: PatternCompiler,
): (path: string) => boolean {
  const { targetModules, excludeModules, layersToTransform, layersPattern } = selection;
  requireConsistent(selection);
  const excluded = excludeModules === null ? () => false : named('exclude_modules', excludeModules, compiler);
  if (typeof targetModules === 'string') {
    const chosen = isAllLinear(targetModules)
      ? (path: string) => path.includes('.layers.')
      : compiler.fullMatch('target_modules', targetModules);
    return (path) => !excluded(path) && chosen(path);
  }
  const chosen = named('target_modules', targetModules, compiler);
  const layerIsChosen = layerSelector(layersToTransform, layersPattern, compiler);
  // A path that is itself in the list is taken whatever its layer.
  return (path) => !excluded(path) && (targetModules.includes(path) || (chosen(path) && layerIsChosen(path)));
}

/** Every linear layer but the output layer. */
function isAllLinear(target: string): boolean {
  return target.toLowerCase() === 'all-linear';
}

function named(
  field: string,
  names: string[] | string,
  compiler: PatternCompiler,
): (path: string) => boolean {
  if (typeof names === 'string') return compiler.fullMatch(field, names);
  return (path) => names.some((name) => path === name || path.endsWith(`.${name}`));
}

function layerSelector(
  layers: number[] | null,
  patterns: string[],
  compiler: PatternCompiler,
): (path: string) => boolean {
  if (layers === null) return () => true;
  const readers = (patterns.length > 0 ? patterns : ['[^.]*']).map((pattern) =>
    compiler.leadingNumber('layers_pattern', `.*\\.(?:${pattern})\\.(\\d+)\\.`, pattern),
  );
  return (path) => {
    const layer = readers.map((read) => read(path)).find((found) => found !== null);
    return layer !== undefined && layer !== null && layers.includes(layer);
  };
}

function requireConsistent({ targetModules, layersToTransform, layersPattern }: ModuleSelection): void {
  if (typeof targetModules === 'string' && layersToTransform !== null) {
    const want = 'none where target_modules is a pattern';
    throw expected('malformed_config', 'layers_to_transform', want, layersToTransform);
  }
  if (layersPattern.length > 0 && layersToTransform === null) {
    throw expected('malformed_config', 'layers_pattern', 'none without layers_to_transform', layersPattern);
  }
}
