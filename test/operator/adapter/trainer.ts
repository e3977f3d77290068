import type { Publication, PublishResult } from '../../../operator/adapter/publish/publication.ts';
import { RevisionPublisher } from '../../../operator/adapter/publish/publisher.ts';
import type { Pod } from '../../../operator/pods/pod.ts';
import { LorikeetError } from '../../../server/contract/errors.ts';
import { digestOf, goodAdapter } from '../../support/adapter-files.ts';
import type { Harness } from './harness.ts';

export const digestOfSeed = (seed: number) => digestOf(goodAdapter(seed));

/** Pushes to the adapter `policy` of a harness, as the push endpoint would. */
export class Trainer {
  readonly publisher: RevisionPublisher;
  readonly #harness: Harness;

  constructor(harness: Harness) {
    this.#harness = harness;
    this.publisher = new RevisionPublisher(harness.deps);
  }

  async push(seed: number, overrides: Partial<Publication> = {}): Promise<PublishResult> {
    return await this.publisher.publish(await this.stageEverywhere(seed, overrides));
  }

  /** What the push endpoint does before it publishes: the bytes are in each pod that takes them, and in the spool. */
  async stageEverywhere(seed: number, overrides: Partial<Publication> = {}): Promise<Publication> {
    const files = goodAdapter(seed);
    const digest = digestOf(files);
    const config = JSON.parse(files.config.toString('utf8')) as unknown;
    const { fence } = this.publisher.context('lora', 'policy');
    const signal = new AbortController().signal;
    const stage = async (pod: Pod) => {
      try {
        const options = { size: files.tensors.length, config, step: overrides.step ?? null, fence, signal };
        await pod.client.upload('policy', files.tensors, options);
        return { pod, ok: true, error: null, ms: 1 };
      } catch (error) {
        const refusal =
          error instanceof LorikeetError ? error : new LorikeetError('pod_failed', String(error));
        return { pod, ok: false, error: refusal, ms: 1 };
      }
    };
    const staged = await Promise.all(this.publisher.context('lora', 'policy').pods.map(stage));
    const writer = this.#harness.deps.spool.begin();
    await writer.write(files.tensors);
    await writer.commit(digest, { config });
    const shape = { bytes: files.tensors.length, rank: 8, targetModules: ['q_proj', 'v_proj'] };
    const who = { namespace: 'lora', name: 'policy', servedName: 'policy', pushedBy: 'trainer' };
    const how = { step: null, ifMatch: null, wait: 'active' as const, signal };
    return { ...who, ...shape, digest, config, staged, ...how, ...overrides };
  }
}
