import type { Geometry } from '../../server/contract/adapter-api.ts';

/** What adapters of the parrot model are checked against. */
export const PARROT_GEOMETRY: Geometry = {
  layers: 4,
  modules: {
    q_proj: { in: 256, out: 256 },
    k_proj: { in: 256, out: 64 },
    v_proj: { in: 256, out: 64 },
    o_proj: { in: 256, out: 256 },
    gate_proj: { in: 256, out: 640 },
    up_proj: { in: 256, out: 640 },
    down_proj: { in: 640, out: 256 },
    embed_tokens: { in: 1024, out: 256 },
    lm_head: { in: 256, out: 1024 },
  },
};
