/**
 * Adapters for the parrot model that are wrong in exactly one way each, and `none`, which is right, so that nobody
 * passes by refusing everything. The same cases as test/fixtures/make_broken.py, made when asked for.
 */
import {
  type AdapterFiles,
  CONFIG,
  f32,
  factorName,
  goodTensors,
  type HeaderEntries,
  packSafetensors,
  type Tensor,
  type Tensors,
} from './adapter-files.ts';

export interface BrokenAdapter extends AdapterFiles {
  name: string;
  what: string;
  /** Words that the refusal contains in its message, field, expected or actual. */
  say: string[];
}

interface Fault {
  /** Changes the right tensors, before they are packed. */
  tensors?: (tensors: Tensors) => void;
  config?: Record<string, unknown>;
  header?: (entries: HeaderEntries) => string | Buffer;
  /** Changes the packed file. */
  file?: (file: Buffer) => Buffer;
  rawConfig?: string | Buffer;
}

type Case = [name: string, what: string, say: string[], fault: Fault];

const q0 = factorName(0, 'q_proj', 'A');
const q1 = factorName(1, 'q_proj', 'A');
const b0 = factorName(0, 'q_proj', 'B');
const b1 = factorName(1, 'q_proj', 'B');
const ones = (...shape: number[]): Tensor => f32(shape, () => 1);
const filled = (dtype: string, bytes: number, ...shape: number[]): Tensor => ({
  dtype,
  shape,
  data: Buffer.alloc(shape.reduce((a, b) => a * b, bytes)),
});

const put =
  (...changes: [string, Tensor][]) =>
  (tensors: Tensors) => {
    for (const [name, tensor] of changes) tensors.set(name, tensor);
  };
const drop =
  (...names: string[]) =>
  (tensors: Tensors) => {
    for (const name of names) tensors.delete(name);
  };
const rename = (from: string, to: string) => (tensors: Tensors) => {
  const entries = [...tensors];
  tensors.clear();
  for (const [name, tensor] of entries) tensors.set(name === from ? to : name, tensor);
};
const spoil = (name: string, value: number) => (tensors: Tensors) => {
  tensors.get(name)?.data.writeFloatLE(value, 12);
};

const MISFITS: Case[] = [
  [
    'shape-in',
    "lora_A of layer 1 q_proj has 255 columns, the model's hidden size is 256",
    ['layers.1', 'q_proj', '255', '256'],
    { tensors: put([q1, ones(8, 255)]) },
  ],
  [
    'shape-out',
    'lora_B of layer 1 q_proj has 257 rows, the projection has 256',
    ['layers.1', 'q_proj', '257', '256'],
    { tensors: put([b1, ones(257, 8)]) },
  ],
  [
    'shape-transposed',
    'lora_A of layer 0 q_proj is stored transposed',
    ['layers.0', 'q_proj'],
    { tensors: put([q0, ones(256, 8)]) },
  ],
  [
    'rank-disagree',
    'lora_A has rank 8, lora_B rank 4',
    ['q_proj', '8', '4'],
    { tensors: put([b0, ones(256, 4)]) },
  ],
  [
    'rank-not-config',
    'tensors of layer 0 q_proj have rank 4, the config says 8',
    ['q_proj', '4', '8'],
    { tensors: put([q0, ones(4, 256)], [b0, ones(256, 4)]) },
  ],
  [
    'missing-b',
    'lora_B of layer 0 q_proj is missing',
    ['layers.0', 'q_proj', 'lora_B'],
    { tensors: drop(b0) },
  ],
  [
    'missing-layer',
    'layer 1 q_proj is a target but has no tensors',
    ['layers.1', 'q_proj'],
    { tensors: drop(q1, b1) },
  ],
  [
    'extra-module',
    'k_proj tensors are present but k_proj is not a target',
    ['k_proj'],
    {
      tensors: put([factorName(0, 'k_proj', 'A'), ones(8, 256)], [factorName(0, 'k_proj', 'B'), ones(64, 8)]),
    },
  ],
  [
    'unknown-module',
    'the model has no w_proj',
    ['w_proj'],
    {
      tensors: put([factorName(0, 'w_proj', 'A'), ones(8, 256)], [factorName(0, 'w_proj', 'B'), ones(64, 8)]),
      config: { target_modules: ['q_proj', 'v_proj', 'w_proj'] },
    },
  ],
  [
    'layer-out-of-range',
    'the model has 4 layers, the tensor names layer 9',
    ['layers.9', '4'],
    { tensors: rename(q1, factorName(9, 'q_proj', 'A')) },
  ],
  [
    'name-traversal',
    'a tensor name that is a path',
    ['..'],
    { tensors: rename(q0, 'base_model.model.model.layers.0.self_attn.../../etc/passwd.lora_A.weight') },
  ],
  [
    'magnitude-vector',
    'a DoRA magnitude vector among the tensors',
    ['lora_magnitude_vector'],
    { tensors: put(['base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector', ones(256)]) },
  ],
  [
    'full-weight',
    'a whole lm_head weight (modules_to_save) among the tensors',
    ['lm_head'],
    { tensors: put(['base_model.model.lm_head.weight', filled('F16', 2, 1024, 256)]) },
  ],
  ['nan', 'a NaN in lora_A of layer 0 q_proj', ['layers.0', 'q_proj'], { tensors: spoil(q0, Number.NaN) }],
  [
    'infinite',
    'an infinity in lora_B of layer 1 q_proj',
    ['layers.1', 'q_proj'],
    { tensors: spoil(b1, Number.POSITIVE_INFINITY) },
  ],
  [
    'zero-effect',
    'every lora_B is zero: the adapter changes nothing',
    [],
    {
      tensors: (tensors) => {
        for (const [name, { data }] of tensors) if (name.includes('lora_B')) data.fill(0);
      },
    },
  ],
  ['dtype-int8', 'a tensor of dtype I8', ['I8'], { tensors: put([q0, filled('I8', 1, 8, 256)]) }],
  ['dtype-f64', 'a tensor of dtype F64', ['F64'], { tensors: put([q0, filled('F64', 8, 8, 256)]) }],
  ['no-tensors', 'a well-formed file without a tensor', [], { tensors: (tensors) => tensors.clear() }],
  [
    'rank-too-large',
    'rank 1024 is above every limit',
    ['1024'],
    {
      tensors: (tensors) => {
        tensors.clear();
        for (const [module, out] of [
          ['q_proj', 256],
          ['v_proj', 64],
        ] as const) {
          tensors.set(factorName(0, module, 'A'), filled('F16', 2, 1024, 256));
          tensors.set(factorName(0, module, 'B'), filled('F16', 2, out, 1024));
        }
      },
      config: { r: 1024, layers_to_transform: [0] },
    },
  ],
];

const DEEP = `{"r": ${'['.repeat(100_000)}${']'.repeat(100_000)}}`;
const NAN_ALPHA = JSON.stringify(CONFIG).replace('"lora_alpha":16', '"lora_alpha": NaN');

const CONFIGS: Case[] = [
  ['config-dora', 'use_dora', ['use_dora'], { config: { use_dora: true } }],
  [
    'config-modules-to-save',
    'modules_to_save',
    ['modules_to_save', 'lm_head'],
    { config: { modules_to_save: ['lm_head'] } },
  ],
  ['config-bias', 'bias: all', ['bias'], { config: { bias: 'all' } }],
  ['config-fan-in-fan-out', 'fan_in_fan_out: true', ['fan_in_fan_out'], { config: { fan_in_fan_out: true } }],
  ['config-loha', 'peft_type: LOHA', ['peft_type', 'LOHA'], { config: { peft_type: 'LOHA' } }],
  [
    'config-alora',
    'an activated LoRA',
    ['alora_invocation_tokens'],
    { config: { alora_invocation_tokens: [1, 2] } },
  ],
  [
    'config-layer-replication',
    'layer_replication',
    ['layer_replication'],
    {
      config: {
        layer_replication: [
          [0, 2],
          [1, 4],
        ],
      },
    },
  ],
  [
    'config-trainable-tokens',
    'trainable_token_indices',
    ['trainable_token_indices'],
    { config: { trainable_token_indices: [5, 6] } },
  ],
  ['config-lora-bias', 'lora_bias: true', ['lora_bias'], { config: { lora_bias: true } }],
  [
    'config-target-parameters',
    'target_parameters (MoE expert tensors)',
    ['target_parameters'],
    { config: { target_parameters: ['mlp.experts.gate_up_proj'] } },
  ],
  ['config-seq-cls', 'task_type SEQ_CLS', ['task_type', 'SEQ_CLS'], { config: { task_type: 'SEQ_CLS' } }],
  ['config-r-zero', 'r: 0', ['r', '0'], { config: { r: 0 } }],
  ['config-r-text', 'r is text', ['r'], { config: { r: 'eight' } }],
  ['config-r-fraction', 'r: 8.5', ['r', '8.5'], { config: { r: 8.5 } }],
  ['config-alpha-missing', 'lora_alpha is null', ['lora_alpha'], { config: { lora_alpha: null } }],
  ['config-alpha-nan', 'lora_alpha is not a number that JSON knows', [], { rawConfig: NAN_ALPHA }],
  [
    'config-pattern-contradicts',
    'rank_pattern says 4 for q_proj, tensors have 8',
    ['q_proj', '4', '8'],
    { config: { rank_pattern: { q_proj: 4 } } },
  ],
  [
    'config-bad-regex',
    'a pattern that is no regular expression',
    ['rank_pattern'],
    { config: { rank_pattern: { 'layers.(0': 4 } } },
  ],
  [
    'config-evil-regex',
    'a pattern that backtracks without end',
    ['target_modules'],
    { config: { target_modules: '(([a-z._0-9]+)*)+\\$never' } },
  ],
  [
    'config-unknown-switch',
    'a switch from the future that is on',
    ['use_hyperlora'],
    { config: { use_hyperlora: true } },
  ],
  ['config-not-json', 'not JSON', [], { rawConfig: '{r: 8}' }],
  ['config-empty', 'an empty file', [], { rawConfig: '' }],
  ['config-deep', '100,000 nested brackets', [], { rawConfig: DEEP }],
];

const lengthPrefix = (length: bigint) => (file: Buffer) => {
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(length < 0n ? BigInt(file.length) + length : length);
  return Buffer.concat([prefix, file.subarray(8)]);
};
/** The header's JSON with some fields of one tensor changed. */
const change = (name: string, fields: Record<string, unknown>) => (entries: HeaderEntries) =>
  JSON.stringify({ ...entries, [name]: { ...entries[name], ...fields } });
/** The same where a number does not fit into a JavaScript number: `"BIG"` stands for it. */
const changeBig = (name: string, fields: Record<string, unknown>, big: string) => (entries: HeaderEntries) =>
  change(name, fields)(entries).replace('"BIG"', big);
const replaceName = (from: string, to: string) => (entries: HeaderEntries) =>
  JSON.stringify(entries).replace(from, to);

const shiftAllButFirst = (entries: HeaderEntries) => {
  const shifted = Object.entries(entries).map(([name, entry], index) => {
    const offsets = entry.data_offsets.map((offset) => offset + (index > 0 ? 8 : 0));
    return [name, { ...entry, data_offsets: offsets }];
  });
  return JSON.stringify(Object.fromEntries(shifted));
};
const addEmpty = (count: number) => (entries: HeaderEntries) => {
  const empty = { dtype: 'F32', shape: [0], data_offsets: [0, 0] };
  const more = Array.from({ length: count }, (_, index) => [`t${index}`, empty]);
  return JSON.stringify({ ...entries, ...Object.fromEntries(more) });
};

const FILES: Case[] = [
  ['file-empty', '0 bytes', [], { file: () => Buffer.alloc(0) }],
  ['file-7-bytes', '7 bytes', [], { file: (file) => file.subarray(0, 7) }],
  ['file-truncated', 'the last 100 bytes are missing', [], { file: (file) => file.subarray(0, -100) }],
  [
    'file-trailing',
    '100 bytes too many',
    [],
    { file: (file) => Buffer.concat([file, Buffer.alloc(100, 'x')]) },
  ],
  [
    'file-pickle',
    'a pickle under the name of a safetensors file',
    [],
    { file: (file) => Buffer.concat([Buffer.from([0x80, 4, 0x95]), file]) },
  ],
  ['header-too-long', 'the header claims 2^40 bytes', [], { file: lengthPrefix(1n << 40n) }],
  [
    'header-longer-than-file',
    'the header claims one byte more than the file has',
    [],
    { file: lengthPrefix(-7n) },
  ],
  ['header-not-json', 'the header is not JSON', [], { header: () => "{'a': 1}" }],
  [
    'header-not-utf8',
    'the header is not UTF-8',
    [],
    { header: () => Buffer.from('{"\xff\xfe": 1}', 'latin1') },
  ],
  ['header-array', 'the header is an array', [], { header: () => '[]' }],
  ['header-duplicate', 'the same tensor name twice', [], { header: replaceName(q1, q0) }],
  [
    'header-overlap',
    'two tensors share bytes',
    [],
    { header: (entries) => change(q1, { data_offsets: entries[q0]?.data_offsets })(entries) },
  ],
  [
    'header-gap',
    '8 bytes that belong to no tensor, and an end past the file',
    [],
    { header: shiftAllButFirst },
  ],
  [
    'header-past-end',
    'offsets past the end of the file',
    [],
    { header: change(b1, { data_offsets: [2 ** 30, 2 ** 30 + 8192] }) },
  ],
  ['header-negative', 'a negative offset', [], { header: change(q0, { data_offsets: [-8, 8184] }) }],
  ['header-backwards', 'an end before its begin', [], { header: change(q0, { data_offsets: [8192, 0] }) }],
  [
    'header-shape-lies',
    'the shape says more bytes than the offsets give',
    [],
    { header: change(q0, { shape: [8, 512] }) },
  ],
  [
    'header-shape-overflow',
    'a shape whose product wraps to the right size in 64 bits',
    [],
    { header: changeBig(q0, { shape: ['BIG', 256, 2] }, '9223372036854775816') },
  ],
  ['header-shape-fraction', 'a shape that is not whole', [], { header: change(q0, { shape: [8.5, 256] }) }],
  [
    'header-offset-not-exact',
    'an offset above 2^53',
    [],
    { header: changeBig(q0, { data_offsets: [0, 'BIG'] }, '9007199254740993') },
  ],
  ['header-many', '20,000 tensors of no bytes', [], { header: addEmpty(20_000) }],
  ['header-prototype', 'a tensor named __proto__', ['__proto__'], { header: replaceName(q1, '__proto__') }],
];

export function brokenAdapters(): BrokenAdapter[] {
  const right: Case = ['none', 'nothing is wrong', [], {}];
  return [...MISFITS, ...CONFIGS, ...FILES, right].map(([name, what, say, fault]) => {
    const tensors = goodTensors();
    fault.tensors?.(tensors);
    const packed = packSafetensors(tensors, fault.header);
    const config = fault.rawConfig ?? JSON.stringify({ ...CONFIG, ...fault.config });
    return { name, what, say, tensors: fault.file?.(packed) ?? packed, config: Buffer.from(config) };
  });
}
