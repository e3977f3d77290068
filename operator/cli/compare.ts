import { type BoundFactor, type BoundModule, bindAdapter } from '../../server/contract/format/bind.ts';
import { modulePath, readTensorName } from '../../server/contract/format/tensor-names.ts';
import { type AdapterFiles, readAt } from './adapter-files.ts';
import { CommandFailure } from './failure.ts';
import { type Delta, decode, inner } from './norms.ts';

const RANK_MAX = 4096;
const WIDTH_BYTES = { F32: 4, F16: 2, BF16: 2 };

/** One module in both revisions; a side is null where it does not adapt the module. */
export interface ModuleDiff {
  module: string;
  layer: number;
  path: string;
  one: ModuleSide | null;
  two: ModuleSide | null;
  /** ‖ΔW₂ − ΔW₁‖; null: its shape differs. */
  distance: number | null;
}

export interface ModuleSide {
  rank: number;
  scale: number;
  /** ‖ΔW‖ by Frobenius. */
  norm: number;
}

interface Widths {
  in: number;
  out: number;
}

interface Bound {
  files: AdapterFiles;
  widths: Record<string, Widths>;
  byPath: Map<string, BoundModule>;
}

/** By layer, then by module. */
export async function compareAdapters(one: AdapterFiles, two: AdapterFiles): Promise<ModuleDiff[]> {
  const [first, second] = [bound(one), bound(two)];
  const diffs: ModuleDiff[] = [];
  for (const [path, { layer, module }] of new Map([...first.byPath, ...second.byPath])) {
    const deltas = [await deltaOf(first, path), await deltaOf(second, path)] as const;
    const sides = [sideOf(deltas[0]), sideOf(deltas[1])] as const;
    diffs.push({ module, layer, path, one: sides[0], two: sides[1], distance: distanceOf(deltas, sides) });
  }
  return diffs.sort((a, b) => a.layer - b.layer || a.module.localeCompare(b.module));
}

/** Widths are those of the tensors themselves: no base model is at hand to say more. */
function bound(files: AdapterFiles): Bound {
  const { config, header, path } = files;
  if (config === null) {
    throw new CommandFailure(`${path} has no adapter_config.json beside it, nor in its header`);
  }
  const widths: Record<string, Widths> = {};
  let layers = 1;
  for (const tensor of header.tensors) {
    const { layer, module, part } = readTensorName(tensor.name);
    layers = Math.max(layers, layer + 1);
    const width = widths[module] ?? { in: 0, out: 0 };
    widths[module] = width;
    if (part === 'a') width.in ||= tensor.shape[1] ?? 0;
    if (part === 'b') width.out ||= tensor.shape[0] ?? 0;
  }
  const limits = { geometry: { layers, modules: widths }, maxRank: RANK_MAX };
  const adapter = bindAdapter(config, header, limits);
  const byPath = new Map(adapter.modules.map((module) => [modulePath(module.layer, module.module), module]));
  return { files, widths, byPath };
}

async function deltaOf({ files, byPath, widths }: Bound, path: string): Promise<Delta | null> {
  const module = byPath.get(path);
  const width = module && widths[module.module];
  if (module === undefined || width === undefined) return null;
  const { rank, scale } = module;
  const read = async ({ offset, dtype }: BoundFactor, values: number) =>
    decode(await readAt(files.file, offset, offset + values * WIDTH_BYTES[dtype]), dtype);
  const a = await read(module.a, rank * width.in);
  const b = await read(module.b, rank * width.out);
  return { rank, scale, ...width, a, b };
}

function sideOf(delta: Delta | null): ModuleSide | null {
  if (delta === null) return null;
  return { rank: delta.rank, scale: delta.scale, norm: Math.sqrt(Math.max(0, inner(delta, delta))) };
}

/** ‖ΔW₂ − ΔW₁‖² = ‖ΔW₁‖² + ‖ΔW₂‖² − 2⟨ΔW₁, ΔW₂⟩; what a side does not adapt, it adds nothing to. */
function distanceOf(
  [first, second]: readonly [Delta | null, Delta | null],
  [one, two]: readonly [ModuleSide | null, ModuleSide | null],
): number | null {
  const isBoth = first !== null && second !== null;
  if (isBoth && (first.in !== second.in || first.out !== second.out)) return null;
  const product = isBoth ? inner(first, second) : 0;
  const squares = (one?.norm ?? 0) ** 2 + (two?.norm ?? 0) ** 2;
  return Math.sqrt(Math.max(0, squares - 2 * product));
}

export interface GroupDiff {
  module: string;
  layers: number;
  /** Distinct, ascending; empty: the side does not adapt it. */
  ranks: { one: number[]; two: number[] };
  norms: { one: number | null; two: number | null };
  distance: number | null;
}

/** All layers of a module together, in the order of the first. */
export function byModule(diffs: readonly ModuleDiff[]): GroupDiff[] {
  return [...Map.groupBy(diffs, ({ module }) => module)].map(([module, members]) =>
    together(module, members),
  );
}

export function together(module: string, members: readonly ModuleDiff[]): GroupDiff {
  const sides = (side: 'one' | 'two') => members.flatMap((diff) => diff[side] ?? []);
  const ranks = (side: 'one' | 'two') =>
    [...new Set(sides(side).map(({ rank }) => rank))].sort((a, b) => a - b);
  const norm = (side: 'one' | 'two') => length(sides(side).map((item) => item.norm));
  const distances = members.map(({ distance }) => distance);
  return {
    module,
    layers: members.length,
    ranks: { one: ranks('one'), two: ranks('two') },
    norms: { one: norm('one'), two: norm('two') },
    distance: distances.every((distance) => distance !== null) ? length(distances) : null,
  };
}

function length(parts: readonly number[]): number | null {
  return parts.length === 0 ? null : Math.hypot(...parts);
}
