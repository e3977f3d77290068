import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Geometry } from '../contract/adapter-api.ts';
import { ModelError } from './errors.ts';
import { type Keys, optionalKeys, positiveInteger } from './keys.ts';
import { geometryOf, type Widths } from './load.ts';
import { baseDigest, openShards, readJsonFile, type Shards } from './shards.ts';

/** What adapters are checked against where another engine computes. */
export interface ModelIdentity {
  /** See `baseDigest`; of config.json alone where the folder has no weights. */
  digest: string;
  geometry: Geometry;
}

/**
 * Reads config.json of any decoder whose layers have attention and a feed-forward part of the usual names, quantised or
 * not: the engine that has the weights knows how it computes. Of a model that also sees or hears, its text part.
 */
export async function readIdentity(dir: string): Promise<ModelIdentity> {
  const keys = await readJsonFile(dir, 'config.json');
  if (keys === null) {
    throw new ModelError('missing_file', join(dir, 'config.json'), { expected: 'a file', actual: 'none' });
  }
  const geometry = geometryOf(widthsIn(optionalKeys(keys, 'text_config') ?? keys));
  return { digest: await baseDigest(dir, await shardsIn(dir)), geometry };
}

function widthsIn(keys: Keys): Widths {
  const hiddenSize = positiveInteger(keys, 'hidden_size');
  const heads = positiveInteger(keys, 'num_attention_heads');
  return {
    layers: positiveInteger(keys, 'num_hidden_layers'),
    hiddenSize,
    heads,
    kvHeads: keys.num_key_value_heads == null ? heads : positiveInteger(keys, 'num_key_value_heads'),
    headDim: keys.head_dim == null ? hiddenSize / heads : positiveInteger(keys, 'head_dim'),
    ffnSize: positiveInteger(keys, 'intermediate_size'),
    vocabSize: positiveInteger(keys, 'vocab_size'),
  };
}

async function shardsIn(dir: string): Promise<Pick<Shards, 'files'>> {
  const names = ['model.safetensors', 'model.safetensors.index.json'];
  const found = await Promise.all(names.map((name) => stat(join(dir, name)).catch(() => null)));
  return found.some((item) => item !== null) ? await openShards(dir) : { files: [] };
}
