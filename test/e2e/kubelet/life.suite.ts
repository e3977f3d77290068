import { afterAll, beforeAll, expect, it } from 'vitest';
import { ask, fixtureAdapter } from '../client.ts';
import { goldenAnswer } from '../golden.ts';
import { BUCKET, storedAdapter } from '../manifests.ts';
import type { World } from '../world.ts';
import { type Nodes, startRealWorld } from './cluster.ts';

const QUESTION = 'List the name of all songs from Lima.';
let world: World<Nodes>;

beforeAll(async () => {
  world = await startRealWorld();
  const { tensors, config } = await fixtureAdapter('sql');
  await world.store.put(BUCKET, 'sql/adapter_model.safetensors', tensors);
  await world.store.put(BUCKET, 'sql/adapter_config.json', config);
});

afterAll(() => world?.stop());

it('installs both charts where Pod Security enforces restricted, and serves an adapter from S3', async () => {
  await world.applyCharts({ servers: 2 });
  await world.untilPodsReady(2, 1, 180_000);
  await world.apply(storedAdapter('sql', world.store.endpoint));
  await world.untilReady('sql');
  const answers = await Promise.all((await world.servers()).map(({ ip }) => ask(ip, 'sql', QUESTION)));
  const expected = await goldenAnswer('sql', QUESTION);
  expect(answers.map(({ text }) => text)).toEqual([expected, expected]);
});
