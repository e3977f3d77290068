import {
  type AdapterFiles,
  CONFIG,
  f32,
  factorName,
  packSafetensors,
  type Tensors,
} from '../../support/adapter-files.ts';
import { PARROT_GEOMETRY } from '../../support/parrot-geometry.ts';

const made = new Map<string, AdapterFiles>();

/** Rank 64 on all seven modules, 4.5 MB: far more than sockets and windows hold. On q_proj and v_proj, 0.9 MB. */
export function bigAdapter(modules = Object.keys(PARROT_GEOMETRY.modules)): AdapterFiles {
  const known = made.get(modules.join());
  if (known) return known;
  const tensors: Tensors = new Map();
  for (let layer = 0; layer < PARROT_GEOMETRY.layers; layer += 1) {
    for (const module of modules) {
      const { in: width, out } = PARROT_GEOMETRY.modules[module] as { in: number; out: number };
      tensors.set(factorName(layer, module, 'A'), f32([64, width], Math.sin));
      tensors.set(factorName(layer, module, 'B'), f32([out, 64], Math.cos));
    }
  }
  const config = Buffer.from(JSON.stringify({ ...CONFIG, r: 64, target_modules: modules }));
  const files = { tensors: packSafetensors(tensors), config };
  made.set(modules.join(), files);
  return files;
}

export const configHeader = (config: Buffer) => config.toString('base64url');
