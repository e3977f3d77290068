import { readFileSync } from 'node:fs';
import type { Geometry } from '../../../server/contract/adapter-api.ts';
import { parseAdapterConfig } from '../../../server/contract/format/adapter-config.ts';
import { type BoundAdapter, bindAdapter } from '../../../server/contract/format/bind.ts';
import { headerLength, parseHeader } from '../../../server/contract/format/safetensors.ts';
import {
  type AdapterFiles,
  CONFIG,
  f32,
  factorName,
  packSafetensors,
  type Tensor,
  type Tensors,
} from '../../support/adapter-files.ts';
import { PARROT_GEOMETRY } from '../../support/parrot-geometry.ts';

export function bindFiles({ tensors, config }: AdapterFiles, geometry = PARROT_GEOMETRY): BoundAdapter {
  const header = parseHeader(tensors.subarray(0, headerLength(tensors)));
  return bindAdapter(parseAdapterConfig(config), header, { geometry, maxRank: 64 });
}

/** `config` changes CONFIG. */
export function bind(
  tensors: Tensors,
  config: Record<string, unknown> = {},
  geometry = PARROT_GEOMETRY,
): BoundAdapter {
  const bytes = Buffer.from(JSON.stringify({ ...CONFIG, ...config }));
  return bindFiles({ tensors: packSafetensors(tensors), config: bytes }, geometry);
}

export function fixtureFiles(name: string): AdapterFiles {
  const dir = new URL(`../../fixtures/parrot/adapters/${name}/`, import.meta.url);
  return {
    tensors: readFileSync(new URL('adapter_model.safetensors', dir)),
    config: readFileSync(new URL('adapter_config.json', dir)),
  };
}

export const ones = (...shape: number[]): Tensor => f32(shape, () => 1);

/** Factors of rank 8 for modules of layer 0, or of none. */
export function layerTensors(modules: string[], geometry: Geometry = PARROT_GEOMETRY): Tensors {
  return new Map(
    modules.flatMap((module) => {
      const { in: columns = 0, out: rows = 0 } = geometry.modules[module] ?? {};
      return [
        [factorName(0, module, 'A'), ones(8, columns)] as const,
        [factorName(0, module, 'B'), ones(rows, 8)] as const,
      ];
    }),
  );
}
