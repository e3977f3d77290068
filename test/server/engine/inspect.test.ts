import { describe, expect, it } from 'vitest';
import { parseAdapterConfig } from '../../../server/contract/format/adapter-config.ts';
import { bindAdapter } from '../../../server/contract/format/bind.ts';
import { headerLength, parseHeader } from '../../../server/contract/format/safetensors.ts';
import { inspect } from '../../../server/engine/inspect.ts';
import { CONFIG, goodTensors, packSafetensors, type Tensors } from '../../support/adapter-files.ts';
import { PARROT_GEOMETRY } from '../../support/parrot-geometry.ts';

function contentOf(tensors: Tensors) {
  const body = packSafetensors(tensors);
  const header = parseHeader(body.subarray(0, headerLength(body)));
  const config = parseAdapterConfig(Buffer.from(JSON.stringify(CONFIG)));
  return { body, bound: bindAdapter(config, header, { geometry: PARROT_GEOMETRY, maxRank: 64 }) };
}

/** The last number of a tensor as these bits, in its dtype. */
function withLast(name: RegExp, dtype: 'F32' | 'BF16' | 'F16', bits: number): Tensors {
  const tensors = goodTensors();
  const [key = '', tensor] = [...tensors].find(([found]) => name.test(found)) ?? [];
  if (tensor === undefined) throw new Error('no such tensor');
  const size = dtype === 'F32' ? 4 : 2;
  const data = Buffer.alloc((tensor.data.length / 4) * size, 0);
  if (size === 4) data.writeUInt32LE(bits, data.length - 4);
  else data.writeUInt16LE(bits, data.length - 2);
  return tensors.set(key, { ...tensor, dtype, data });
}

const A = /layers\.1\.self_attn\.q_proj\.lora_A/;

describe('numbers that an engine does not look at', () => {
  it.each([
    ['F32', 'NaN', 0x7fc0_0001],
    ['F32', '-Infinity', 0xff80_0000],
    ['BF16', 'NaN', 0x7fc1],
    ['BF16', 'Infinity', 0x7f80],
    ['F16', 'NaN', 0xfe01],
    ['F16', '-Infinity', 0xfc00],
  ] as const)('are refused in %s by the name of their tensor: %s', async (dtype, _what, bits) => {
    const message =
      'Expected finite numbers in model.layers.1.self_attn.q_proj.lora_A but found NaN or infinity';
    await expect(inspect(contentOf(withLast(A, dtype, bits)))).rejects.toThrow(message);
  });

  it.each([
    ['F32', 0x7f7f_ffff],
    ['BF16', 0x7f7f],
    ['F16', 0x7bff],
  ] as const)('pass up to the largest of %s', async (dtype, bits) => {
    expect(await inspect(contentOf(withLast(A, dtype, bits)))).toBe(false);
  });

  it('that are zero in every B, signs aside, change nothing', async () => {
    const tensors = goodTensors();
    for (const [name, tensor] of tensors) {
      if (!/lora_B/.test(name)) continue;
      const data = Buffer.alloc(tensor.data.length);
      data.writeUInt32LE(0x8000_0000, 0);
      tensors.set(name, { ...tensor, data });
    }
    expect(await inspect(contentOf(tensors))).toBe(true);
  });
});
