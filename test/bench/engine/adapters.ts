import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { LoraModule } from '../../../native/types.ts';
import { safetensorsLayout, type TensorSpec } from '../../support/safetensors-file.ts';
import { makeOnce } from './cache.ts';
import { modelFolder } from './model.ts';
import { Noise } from './noise.ts';
import {
  ADAPTER_ALPHA,
  ADAPTER_RANK,
  type Projection,
  projectionPath,
  projections,
  type Shape,
} from './shape.ts';

export const ADAPTERS = 16;
/** How far the noise of two adapters is apart. */
const STRIDE_VALUES = 500_009;

export function adapterName(index: number): string {
  return `a${index}`;
}

/** Where every factor is in the body of any of the adapters, which is A before B, module by module. */
export function adapterModules(shape: Shape, rank = ADAPTER_RANK): LoraModule[] {
  const sizes = projections(shape);
  let bytes = 0;
  const place = (values: number) => {
    const offset = bytes;
    bytes += 2 * values;
    return { offset, dtype: 'BF16' as const };
  };
  return Array.from({ length: shape.layers }, (_, layer) =>
    (Object.entries(sizes) as [Projection, [number, number]][]).map(([module, [out, input]]) => {
      const scale = ADAPTER_ALPHA / rank;
      const a = place(rank * input);
      return { layer, module, rank, scale, a, b: place(rank * out) };
    }),
  ).flat();
}

export function adapterBody(
  shape: Shape,
  index: number,
  { noise = new Noise(), rank = ADAPTER_RANK } = {},
): Uint8Array {
  const values = Object.values(projections(shape)).reduce(
    (sum, [out, input]) => sum + shape.layers * rank * (out + input),
    0,
  );
  noise.seek((index + 1) * STRIDE_VALUES);
  return Buffer.concat([...noise.take(values)]);
}

/** The same adapters as PEFT folders, for who reads nothing else. */
export async function ensurePeftFolders(shape: Shape): Promise<string[]> {
  const folders: string[] = [];
  for (let index = 0; index < ADAPTERS; index++) {
    const path = join(`${modelFolder(shape)}-adapters`, adapterName(index));
    folders.push(await makeOnce(path, (partial) => writePeftFolder(partial, shape, index)));
  }
  return folders;
}

async function writePeftFolder(dir: string, shape: Shape, index: number): Promise<void> {
  const { config, tensors } = peftAdapter(shape, index);
  await mkdir(dir, { recursive: true });
  await writeFile(join(dir, 'adapter_config.json'), config);
  await writeFile(join(dir, 'adapter_model.safetensors'), tensors);
}

/** The files of such a folder. */
export function peftAdapter(
  shape: Shape,
  index: number,
  options: { noise?: Noise; rank?: number } = {},
): { config: Buffer; tensors: Buffer } {
  const { rank = ADAPTER_RANK } = options;
  const sizes: Record<string, [out: number, input: number]> = projections(shape);
  const tensors: TensorSpec[] = adapterModules(shape, rank).flatMap(({ layer, module, rank }) => {
    const prefix = `base_model.model.model.layers.${layer}.${projectionPath(module)}`;
    const [out = 0, input = 0] = sizes[module] ?? [];
    return [
      { name: `${prefix}.lora_A.weight`, dtype: 'BF16' as const, shape: [rank, input] },
      { name: `${prefix}.lora_B.weight`, dtype: 'BF16' as const, shape: [out, rank] },
    ];
  });
  const config = {
    peft_type: 'LORA',
    task_type: 'CAUSAL_LM',
    base_model_name_or_path: shape.name,
    r: rank,
    lora_alpha: ADAPTER_ALPHA,
    bias: 'none',
    target_modules: Object.keys(sizes),
  };
  return {
    config: Buffer.from(JSON.stringify(config)),
    tensors: Buffer.concat([safetensorsLayout(tensors).head, adapterBody(shape, index, options)]),
  };
}
