import type { Geometry } from '../../../server/contract/adapter-api.ts';
import { projections, SHAPE_1B } from '../engine/shape.ts';

export const SHAPE = SHAPE_1B;
/** Of the largest body that the bench pushes. */
export const BYTES_MAX = 128 << 20;

/** What pods say of the base model. */
export function geometry(): Geometry {
  const modules = Object.entries(projections(SHAPE)).map(([module, [out, input]]) => {
    return [module, { in: input, out }];
  });
  return { layers: SHAPE.layers, modules: Object.fromEntries(modules) };
}
