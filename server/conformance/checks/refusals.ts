import type { ErrorCode } from '../../contract/errors.ts';
import {
  type AdapterMaker,
  type Changes,
  factorName,
  type HeaderEntries,
  type Tensors,
} from '../adapters.ts';
import { type Check, must } from '../check.ts';
import { requireFields, requireRefusal, requireSame, requireThat, Skipped } from '../expectations.ts';

type Fault = [name: string, what: string, code: ErrorCode, changes: (of: AdapterMaker) => Changes];

const MISFITS: Fault[] = [
  [
    'shape',
    'a lora_A one column wider than the module',
    'shape_mismatch',
    (of) => set(of, 'A', [of.rank, of.module.in + 1]),
  ],
  [
    'shape-out',
    'a lora_B one row longer than the module',
    'shape_mismatch',
    (of) => set(of, 'B', [of.module.out + 1, of.rank]),
  ],
  [
    'ranks-differ',
    'a lora_B of another rank than its lora_A',
    'rank_mismatch',
    (of) => set(of, 'B', [of.module.out, of.rank + 1]),
  ],
  [
    'rank-of-config',
    'tensors of another rank than the config says',
    'rank_mismatch',
    (of) => ({ config: { r: of.rank + 1 } }),
  ],
  ['rank-limit', 'a rank above limits.maxRank', 'rank_too_large', () => ({})],
  [
    'factor-missing',
    'a lora_A without its lora_B',
    'missing_tensor',
    (of) => ({ tensors: (tensors) => void tensors.delete(b(of)) }),
  ],
  ['target-missing', 'a target of the config without tensors', 'missing_tensor', targetMissing],
  [
    'target-none',
    'tensors of a module that is no target of the config',
    'unexpected_tensor',
    () => ({ config: { target_modules: ['no_proj'] } }),
  ],
  [
    'tensor-other',
    'a tensor that is no factor',
    'unexpected_tensor',
    (of) => ({ tensors: (tensors) => void tensors.set(NORM, of.noise([of.module.in])) }),
  ],
  ['module-unknown', 'a module that the base model has not', 'unknown_module', moduleUnknown],
  ['layer-unknown', 'a layer that the base model has not', 'unknown_module', () => ({})],
  ['dtype-i8', 'tensors of I8', 'unsupported_dtype', (of) => retype(of, 'I8', 1)],
  ['dtype-f64', 'tensors of F64', 'unsupported_dtype', (of) => retype(of, 'F64', 8)],
  ['nan', 'a NaN', 'non_finite', (of) => spoil(of, { F32: 0x7fc0, BF16: 0x7fc0, F16: 0x7e00 })],
  ['infinity', 'an infinity', 'non_finite', (of) => spoil(of, { F32: 0x7f80, BF16: 0x7f80, F16: 0x7c00 })],
  ['zero-effect', 'every lora_B zero', 'zero_effect', () => ({ tensors: zeroB })],
  ['no-tensors', 'no tensor at all', 'no_modules', () => ({ tensors: (tensors) => tensors.clear() })],
  ['dora', 'a config with use_dora', 'unsupported_adapter_feature', () => ({ config: { use_dora: true } })],
  ['bias', 'a config with biases', 'unsupported_adapter_feature', () => ({ config: { bias: 'all' } })],
  [
    'modules-to-save',
    'a config with modules_to_save',
    'unsupported_adapter_feature',
    () => ({ config: { modules_to_save: ['lm_head'] } }),
  ],
  [
    'unknown-switch',
    'a config with an unknown key that is on',
    'unsupported_adapter_feature',
    () => ({ config: { use_tomorrow: true } }),
  ],
  [
    'other-method',
    'a config of another method than LoRA',
    'unsupported_adapter_feature',
    () => ({ config: { peft_type: 'LOHA' } }),
  ],
];

const CONFIGS: Fault[] = [
  ['config-no-json', 'a config that is no JSON', 'malformed_config', () => ({ configText: '{r: 8}' })],
  ['config-no-object', 'a config that is no object', 'malformed_config', () => ({ configText: '[]' })],
  [
    'config-equal-keys',
    'a config with two equal keys',
    'malformed_config',
    (of) => ({ configText: JSON.stringify(of.config()).replace('{', '{"r": 1,') }),
  ],
  ['config-rank-zero', 'a config of rank 0', 'malformed_config', () => ({ config: { r: 0 } })],
  [
    'config-no-alpha',
    'a config without lora_alpha',
    'malformed_config',
    () => ({ config: { lora_alpha: null } }),
  ],
];

const FILES: Fault[] = [
  ['file-empty', 'no bytes', 'malformed_safetensors', () => ({ file: () => Buffer.alloc(0) })],
  [
    'file-short',
    'a file whose last bytes are missing',
    'malformed_safetensors',
    () => ({ file: (file) => file.subarray(0, -8) }),
  ],
  [
    'file-long',
    'a file with bytes behind its end',
    'malformed_safetensors',
    () => ({ file: (file) => Buffer.concat([file, Buffer.alloc(8)]) }),
  ],
  [
    'file-pickle',
    'a pickle',
    'malformed_safetensors',
    () => ({ file: (file) => Buffer.concat([Buffer.from([0x80, 4, 0x95]), file]) }),
  ],
  [
    'header-huge',
    'a header of 2^40 bytes, as it says',
    'malformed_safetensors',
    () => ({ file: hugeHeader }),
  ],
  [
    'header-no-json',
    'a header that is no JSON',
    'malformed_safetensors',
    () => ({ header: () => '{"a": 1' }),
  ],
  ['header-twice', 'two tensors of one name', 'malformed_safetensors', (of) => ({ header: twice(of) })],
  [
    'header-overlap',
    'two tensors that share bytes',
    'malformed_safetensors',
    (of) => ({ header: moved(of, (_, first) => first) }),
  ],
  [
    'header-gap',
    'bytes that are of no tensor',
    'malformed_safetensors',
    (of) => ({ header: moved(of, ([from, to]) => [from + 2, to + 2]) }),
  ],
  [
    'header-past-end',
    'a tensor behind the end of the file',
    'malformed_safetensors',
    (of) => ({ header: moved(of, ([from, to]) => [from + 2 ** 30, to + 2 ** 30]) }),
  ],
  [
    'header-backwards',
    'a tensor that ends before it begins',
    'malformed_safetensors',
    (of) => ({ header: moved(of, ([from, to]) => [to, from]) }),
  ],
];

/** What a fault needs to know of the server is filled in here. */
const SPECIAL: Record<string, (of: AdapterMaker, limits: { layers: number; maxRank: number }) => Changes> = {
  'rank-limit': (_, { maxRank }) => ({ rank: maxRank + 1 }),
  'layer-unknown': (of, { layers }) => ({
    config: { layers_to_transform: [0, layers] },
    tensors: (tensors) => {
      tensors.set(factorName(layers, of.module.name, 'A'), of.noise([of.rank, of.module.in]));
      tensors.set(factorName(layers, of.module.name, 'B'), of.noise([of.module.out, of.rank]));
    },
  }),
};

export const REFUSALS: Check[] = [
  ...[...MISFITS, ...CONFIGS, ...FILES].map(([name, what, code, changes]) =>
    must(`refuses-${name}`, `An adapter of ${what} is refused as ${code}, and not kept.`, async (bench) => {
      const { baseModel, limits } = bench.before;
      const facts = { layers: baseModel.geometry.layers, maxRank: limits.maxRank };
      const fault = SPECIAL[name]?.(bench.adapters, facts) ?? changes(bench.adapters);
      const [served, upload] = [bench.name(), bench.adapters.make(fault)];
      if (upload.body.length > limits.maxAdapterBytes)
        throw new Skipped('limits.maxAdapterBytes is below it');
      requireRefusal(await bench.upload(served, upload), code);
      requireSame('revisions', await bench.heldDigests(served), []);
    }),
  ),

  must(
    'zero-effect-allowed',
    'x-lora-allow: zero_effect lets an adapter pass whose every lora_B is zero.',
    async (bench) => {
      const [name, upload] = [bench.name(), bench.adapters.make({ tensors: zeroB })];
      await bench.stage(name, upload, { 'x-lora-allow': 'zero_effect' });
      requireSame('revisions', await bench.heldDigests(name), [upload.digest]);
    },
  ),

  must('refusal-names', 'A refusal of a tensor names it, what was expected and what came.', async (bench) => {
    const { rank, module } = bench.adapters;
    const fault = set(bench.adapters, 'A', [rank, module.in + 1]);
    const answer = await bench.upload(bench.name(), bench.adapters.make(fault));
    const { field = '', message, ...values } = requireRefusal(answer, 'shape_mismatch');
    const isNamed = field.includes('layers.0') && field.includes(module.name) && field.includes('lora_A');
    requireThat(isNamed, `a field that names lora_A of ${module.name} in layers.0`, field);
    requireThat(message !== '', 'a message', message);
    requireFields('the refusal', values, { expected: [rank, module.in], actual: [rank, module.in + 1] });
  }),

  must(
    'refusal-leaves-all',
    'What is refused takes no room: what is used of the host tier is as before.',
    async (bench) => {
      const name = bench.name();
      await bench.putNew(name);
      const { hostBytes } = (await bench.state()).used;
      requireRefusal(
        await bench.upload(name, bench.adapters.make({ config: { use_dora: true } })),
        'unsupported_adapter_feature',
      );
      requireRefusal(
        await bench.upload(
          name,
          bench.adapters.make(spoil(bench.adapters, { F32: 0x7fc0, BF16: 0x7fc0, F16: 0x7e00 })),
        ),
        'non_finite',
      );
      requireSame('used.hostBytes', (await bench.state()).used.hostBytes, hostBytes);
    },
  ),
];

const NORM = 'base_model.model.model.layers.0.input_layernorm.weight';

const a = (of: AdapterMaker) => factorName(0, of.module.name, 'A');
const b = (of: AdapterMaker) => factorName(0, of.module.name, 'B');

function set(of: AdapterMaker, factor: 'A' | 'B', shape: number[]): Changes {
  return { tensors: (tensors) => void tensors.set(factor === 'A' ? a(of) : b(of), of.noise(shape)) };
}

function retype(of: AdapterMaker, dtype: string, bytes: number): Changes {
  const shape = [of.rank, of.module.in];
  const data = Buffer.alloc(of.rank * of.module.in * bytes, 1);
  return { tensors: (tensors) => void tensors.set(a(of), { dtype, shape, data }) };
}

/** By dtype, the upper two bytes of one number. */
function spoil(of: AdapterMaker, upper: Record<string, number>): Changes {
  return {
    tensors: (tensors) => {
      const tensor = tensors.get(a(of));
      const bytes = of.dtype === 'F32' ? 4 : 2;
      tensor?.data.fill(0, 0, bytes);
      tensor?.data.writeUInt16LE(upper[of.dtype] ?? 0, bytes - 2);
    },
  };
}

function zeroB(tensors: Tensors): void {
  for (const [name, { data }] of tensors) if (name.includes('lora_B')) data.fill(0);
}

function targetMissing(of: AdapterMaker): Changes {
  const [, second = of.module] = of.modules;
  return {
    tensors: (tensors) => {
      tensors.delete(factorName(0, second.name, 'A'));
      tensors.delete(factorName(0, second.name, 'B'));
      if (tensors.size === 0) tensors.set(NORM, of.noise([of.module.in]));
    },
  };
}

function moduleUnknown(of: AdapterMaker): Changes {
  const targets = [...of.modules.map(({ name }) => name), 'w_proj'];
  return {
    config: { target_modules: targets },
    tensors: (tensors) => {
      tensors.set(factorName(0, 'w_proj', 'A'), of.noise([of.rank, of.module.in]));
      tensors.set(factorName(0, 'w_proj', 'B'), of.noise([of.module.out, of.rank]));
    },
  };
}

function hugeHeader(file: Buffer): Buffer {
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(1n << 40n);
  return Buffer.concat([length, file.subarray(8)]);
}

const twice = (of: AdapterMaker) => (entries: HeaderEntries) => JSON.stringify(entries).replace(b(of), a(of));

type Span = [from: number, to: number];

/** The header with the bytes of lora_B at another place; `first` are those of lora_A. */
function moved(of: AdapterMaker, to: (span: Span, first: Span) => Span) {
  return (entries: HeaderEntries) => {
    const [first, second] = [entries[a(of)], entries[b(of)]];
    if (first === undefined || second === undefined) return JSON.stringify(entries);
    const data_offsets = to(second.data_offsets as Span, first.data_offsets as Span);
    return JSON.stringify({ ...entries, [b(of)]: { ...second, data_offsets } });
  };
}
