import type { LoraAdapter } from '../../operator/api/lora-adapter.ts';
import { digestOf, goodAdapter } from '../support/adapter-files.ts';
import type { Site } from './site.ts';

/** What people and trainers do, each step until it is true; it must bear that operators end in between. */
export interface Scenario {
  pods: string[];
  act(site: Site): Promise<void>;
}

export const NAME = 'policy';
const BUCKET = 'adapters';
const digestOfSeed = (seed: number) => digestOf(goodAdapter(seed));

async function apply(site: Site, source: object): Promise<void> {
  await site.create(site.path('loraadapters'), {
    apiVersion: 'lorikeet.dev/v1alpha1',
    kind: 'LoraAdapter',
    metadata: { name: NAME },
    spec: { poolRef: { name: 'parrot' }, source },
  });
}

async function push(site: Site, seed: number): Promise<void> {
  const { tensors, config } = goodAdapter(seed);
  await site.ask(`push ${seed} is acknowledged`, `${NAME}/revisions`, {
    method: 'PUT',
    headers: { 'x-lora-config': config.toString('base64url'), 'x-lora-step': String(seed) },
    body: new Uint8Array(tensors),
  });
}

async function rollback(site: Site, seed: number): Promise<void> {
  await site.ask(`the rollback to ${seed} is acknowledged`, `${NAME}/rollback`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ to: digestOfSeed(seed) }),
  });
}

/** Every pod serves it, and status says so of so many pods. */
async function untilServed(site: Site, seed: number): Promise<void> {
  const digest = digestOfSeed(seed);
  await site.until(`${seed} is served everywhere, and told`, async () => {
    const adapter = (await site.get('loraadapters', NAME)) as unknown as LoraAdapter | null;
    const { conditions = [], currentRevision, pods } = adapter?.status ?? {};
    const ready = conditions.find(({ type }) => type === 'Ready');
    const served = [...site.pods.values()].every((pod) => pod.currentOf(NAME) === digest);
    const isTold = currentRevision?.digest === digest && pods?.ready === site.pods.size;
    const state = { ready, pods, current: currentRevision?.short, served };
    if (!served || !isTold || pods?.desired !== site.pods.size || ready?.status !== 'True')
      throw new Error(JSON.stringify(state));
    return true;
  });
}

async function store(site: Site, seed: number): Promise<void> {
  const { tensors, config } = goodAdapter(seed);
  await site.put(BUCKET, `${site.namespace}/adapter_config.json`, config);
  await site.put(BUCKET, `${site.namespace}/adapter_model.safetensors`, tensors);
}

async function applyStored(site: Site): Promise<void> {
  await store(site, 1);
  await apply(site, { objectStore: placeIn(site) });
  await untilServed(site, 1);
}

function placeIn(site: Site): object {
  const uri = `s3://${BUCKET}/${site.namespace}/`;
  return { uri, endpoint: site.storeEndpoint, region: 'us-east-1', credentialsSecretRef: { name: 's3' } };
}

async function applyPushed(site: Site): Promise<void> {
  await apply(site, { push: {} });
  await push(site, 1);
  await untilServed(site, 1);
}

const TWO = ['pod-0', 'pod-1'];

export const SCENARIOS = {
  apply: { pods: TWO, act: applyStored },
  push: { pods: TWO, act: applyPushed },
  'new content': {
    pods: TWO,
    act: async (site) => {
      await applyStored(site);
      await store(site, 2);
      await site.patch('loraadapters', NAME, {
        metadata: { annotations: { 'lorikeet.dev/refresh': 'now' } },
      });
      await untilServed(site, 2);
    },
  },
  'another push': {
    pods: TWO,
    act: async (site) => {
      await applyPushed(site);
      await push(site, 2);
      await untilServed(site, 2);
    },
  },
  'durable push': {
    pods: TWO,
    act: async (site) => {
      // Makes the bucket.
      await site.put(BUCKET, `${site.namespace}/made`, new Uint8Array(1));
      await apply(site, { push: { durability: 'ObjectStore', objectStore: placeIn(site) } });
      await push(site, 1);
      await untilServed(site, 1);
      await site.loseAll();
      await untilServed(site, 1);
    },
  },
  rollback: {
    pods: TWO,
    act: async (site) => {
      await applyPushed(site);
      await push(site, 2);
      await rollback(site, 1);
      await untilServed(site, 1);
    },
  },
  'pool change': {
    pods: TWO,
    act: async (site) => {
      await applyPushed(site);
      await site.addPod('pod-2');
      await untilServed(site, 1);
      await site.removePod('pod-0');
      await untilServed(site, 1);
    },
  },
  scale: {
    pods: TWO,
    act: async (site) => {
      await applyStored(site);
      await site.addPod('pod-2');
      await untilServed(site, 1);
      await Promise.all([site.removePod('pod-0'), site.removePod('pod-1')]);
      await untilServed(site, 1);
    },
  },
  delete: {
    pods: TWO,
    act: async (site) => {
      await applyPushed(site);
      await site.remove('loraadapters', NAME);
      await site.until('it is gone', async () => {
        const held = [...site.pods.values()].flatMap((pod) => pod.registry.state().adapters);
        const isThere = (await site.get('loraadapters', NAME)) !== null;
        if (isThere || held.length > 0) throw new Error(JSON.stringify({ isThere, held }));
        return true;
      });
    },
  },
} satisfies Record<string, Scenario>;
export type ScenarioName = keyof typeof SCENARIOS;
