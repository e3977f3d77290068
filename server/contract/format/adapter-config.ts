import { expected, type LorikeetError, notStrictJson } from '../errors.ts';
import { decodeConfig } from '../headers.ts';
import { parseStrictJson, plain, withoutByteOrderMark } from '../strict-json.ts';
import { type KeyPattern, PatternCompiler } from './patterns.ts';
import { moduleSelector } from './targets.ts';

export const CONFIG_BYTES_MAX = 1 << 18;
const DEPTH_MAX = 8;

/** What we take from PEFT's adapter_config.json; every other key is off, or the config is refused. */
export interface AdapterConfig {
  /** The parsed JSON as it came: it is part of the revision's digest. */
  raw: unknown;
  r: number;
  loraAlpha: number;
  useRslora: boolean;
  rankPattern: KeyPattern[];
  alphaPattern: KeyPattern[];
  targetModules: string[] | string;
  excludeModules: string[] | string | null;
  layersToTransform: number[] | null;
  layersPattern: string[];
  /** `base_model_name_or_path`: told, never followed. */
  baseModel: string | null;
  /** True where PEFT would adapt the module of this path (without `base_model.model.`). */
  targets(path: string): boolean;
}

type Keys = Record<string, unknown>;

// Without effect on inference, or told elsewhere in this file.
const IGNORED = new Set([
  'auto_mapping',
  'base_model_name_or_path',
  'corda_config',
  'eva_config',
  'inference_mode',
  'loftq_config',
  'lora_dropout',
  'lora_ga_config',
  'megatron_core',
  'peft_version',
  'qalora_group_size',
  'revision',
  'runtime_config',
  'velora_config',
]);
const HONOURED = new Set([
  'alpha_pattern',
  'bias',
  'exclude_modules',
  'init_lora_weights',
  'layers_pattern',
  'layers_to_transform',
  'lora_alpha',
  'peft_type',
  'r',
  'rank_pattern',
  'target_modules',
  'task_type',
  'use_rslora',
]);
// The other initialisations change the base weights, and the adapter is relative to the changed ones.
const INITIALISATIONS = [true, false, null, 'gaussian', 'eva', 'orthogonal', 'mica'];

/** Reads adapter_config.json. Pure; throws `malformed_config` or `unsupported_adapter_feature`, naming the key. */
export function parseAdapterConfig(bytes: Uint8Array): AdapterConfig {
  const keys = readJson(bytes);
  requireServable(keys);
  const compiler = new PatternCompiler();
  const selection = {
    targetModules: readTargets(keys.target_modules),
    excludeModules: isOff(keys.exclude_modules) ? null : readNames('exclude_modules', keys.exclude_modules),
    layersToTransform: readLayers(keys.layers_to_transform),
    layersPattern: readLayersPattern(keys.layers_pattern),
  };
  return {
    raw: keys,
    r: readRank('r', keys.r),
    loraAlpha: readNumber('lora_alpha', keys.lora_alpha),
    useRslora: readSwitch('use_rslora', keys.use_rslora),
    rankPattern: compiler.keys('rank_pattern', readPatterns('rank_pattern', keys.rank_pattern, readRank)),
    alphaPattern: compiler.keys(
      'alpha_pattern',
      readPatterns('alpha_pattern', keys.alpha_pattern, readNumber),
    ),
    ...selection,
    baseModel: typeof keys.base_model_name_or_path === 'string' ? keys.base_model_name_or_path : null,
    targets: moduleSelector(selection, compiler),
  };
}

/**
 * The bytes of adapter_config.json that came with a body: header `x-lora-config` wins over `__metadata__` of the
 * safetensors header; null where neither has it.
 */
export function configFromHeaders(
  headerValue: string | undefined,
  metadata: Record<string, string>,
): Uint8Array | null {
  if (headerValue !== undefined) return decodeConfig(headerValue);
  const text = Object.hasOwn(metadata, 'adapter_config') ? metadata.adapter_config : undefined;
  return text === undefined ? null : Buffer.from(text, 'utf8');
}

function readJson(bytes: Uint8Array): Keys {
  if (bytes.length > CONFIG_BYTES_MAX) {
    throw malformed('adapter_config.json', `at most ${CONFIG_BYTES_MAX} bytes`, bytes.length);
  }
  let value: unknown;
  try {
    value = parseStrictJson(withoutByteOrderMark(bytes), { depth: DEPTH_MAX });
  } catch (error) {
    throw notStrictJson('malformed_config', 'adapter_config.json', error);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw malformed('adapter_config.json', 'a JSON object', value);
  }
  return value as Keys;
}

function requireServable(keys: Keys): void {
  const { peft_type: type, task_type: task, bias, init_lora_weights: init = true } = keys;
  if (typeof type !== 'string') throw malformed('peft_type', 'LORA', type);
  if (type.toUpperCase() !== 'LORA') throw unsupported('peft_type', 'LORA', type);
  if (!isOff(task) && task !== 'CAUSAL_LM') throw unsupported('task_type', 'CAUSAL_LM', task);
  if (!isOff(bias) && bias !== 'none') throw unsupported('bias', 'none', bias);
  if (!INITIALISATIONS.includes(init as string)) {
    throw unsupported(
      'init_lora_weights',
      'an initialisation that leaves the base weights as they are',
      init,
    );
  }
  for (const [key, value] of Object.entries(keys)) {
    if (!IGNORED.has(key) && !HONOURED.has(key) && !isOff(value))
      throw unsupported(key, 'absent or off', value);
  }
}

function isOff(value: unknown): boolean {
  if (value === undefined || value === null || value === false) return true;
  return typeof value === 'object' && Object.keys(value).length === 0;
}

function readTargets(value: unknown): string[] | string {
  if (isOff(value)) throw malformed('target_modules', 'module names or a pattern', value);
  return readNames('target_modules', value);
}

function readNames(field: string, value: unknown): string[] | string {
  if (typeof value === 'string' && value !== '') return value;
  if (isTexts(value) && value.length <= 4096) return value;
  throw malformed(field, 'a list of module names or a pattern', value);
}

function readLayers(value: unknown): number[] | null {
  if (isOff(value)) return null;
  const layers = Array.isArray(value) ? value : [value];
  if (layers.length <= 4096 && layers.every((layer) => Number.isInteger(layer) && layer >= 0)) return layers;
  throw malformed('layers_to_transform', 'whole numbers of at least 0', value);
}

function readLayersPattern(value: unknown): string[] {
  if (isOff(value) || value === '') return [];
  if (typeof value === 'string') return [value];
  if (isTexts(value) && value.length <= 16) return value;
  throw malformed('layers_pattern', 'text or a list of at most 16 texts', value);
}

function readPatterns(
  field: string,
  value: unknown,
  read: (field: string, value: unknown) => number,
): [string, number][] {
  if (isOff(value)) return [];
  if (typeof value !== 'object' || Array.isArray(value)) {
    throw malformed(field, 'an object from pattern to number', value);
  }
  return Object.entries(value as Keys).map(([key, item]) => [key, read(`${field}.${plain(key)}`, item)]);
}

function readRank(field: string, value: unknown): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= 1) return value;
  throw malformed(field, 'a whole number of at least 1', value);
}

function readNumber(field: string, value: unknown): number {
  if (typeof value === 'number') return value;
  throw malformed(field, 'a number', value);
}

function readSwitch(field: string, value: unknown): boolean {
  if (typeof value === 'boolean') return value;
  if (value === undefined || value === null) return false;
  throw malformed(field, 'true or false', value);
}

function isTexts(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((item) => typeof item === 'string' && item !== '');
}

function unsupported(field: string, want: string, value: unknown): LorikeetError {
  return expected('unsupported_adapter_feature', field, want, value);
}

function malformed(field: string, want: string, value: unknown): LorikeetError {
  return expected('malformed_config', field, want, value);
}
