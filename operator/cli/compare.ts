import {
  type BoundAdapter,
  type BoundFactor,
  type BoundModule,
  bindAdapter,
} from '../../server/contract/format/bind.ts';
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
  type Measured = readonly [Delta | null, ModuleSide | null];

/** ‖ΔW₂ − ΔW₁‖² = ‖ΔW₁‖² + ‖ΔW₂‖² − 2⟨ΔW₁, ΔW₂⟩; what a side does not adapt, it adds nothing to. */
function distanceOf([first, one]: Measured, [second, two]: Measured): number | null {
  if (first !== null && second !== null && !fits(first, second)) return null;
  const product = first === null || second === null ? 0 : inner(first, second);
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
  const groups = Map.groupBy(diffs, ({ module }) => module);
  return [...groups].map(([module, members]) => {
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
  });
}

function length(parts: readonly number[]): number | null {
  return parts.length === 0 ? null : Math.hypot(...parts);
}
