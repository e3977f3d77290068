import { canonicalJson } from '../../../server/contract/digest.ts';
import { goodAdapter } from '../../support/adapter-files.ts';
import { markOf } from '../../support/fake-vllm/server.ts';

/** What the fake engine says under the adapter of that seed, given as this server gives it. */
export function markOfSeed(seed: number): string {
  const { tensors, config } = goodAdapter(seed);
  return markOf({ tensors, config: Buffer.from(canonicalJson(JSON.parse(config.toString()))) });
}
