import { revisionOf } from '../../../operator/adapter/desired.ts';
import { requireEarlier } from '../../../operator/adapter/publish/earlier.ts';
import type {
  Held,
  Publication,
  PublishResult,
  PushContext,
  Rollback,
  RollbackResult,
} from '../../../operator/adapter/publish/publication.ts';
import type { Why } from '../../../operator/adapter/why.ts';
import type { RevisionRecord } from '../../../operator/api/lora-adapter.ts';
import type { Publisher } from '../../../operator/push/publisher.ts';
import type { Geometry } from '../../../server/contract/adapter-api.ts';
import { LorikeetError } from '../../../server/contract/errors.ts';
import { PARROT_GEOMETRY } from '../../support/parrot-geometry.ts';
import { FakePod } from '../../support/pod/fake-pod.ts';

/** Keeps desired revisions the way the real one promises to. */
export class FakePublisher implements Publisher {
  pods: FakePod[] = [new FakePod({ name: 'pod-a' }), new FakePod({ name: 'pod-b' })];
  desired: RevisionRecord | null = null;
  earlier: RevisionRecord[] = [];
  config: unknown | null = null;
  maxBytes = 8 * 2 ** 20;
  maxRank = 64;
  geometry: Geometry = PARROT_GEOMETRY;
  verify: object | undefined;
  error: LorikeetError | null = null;
  quotaError: LorikeetError | null = null;
  readonly publications: Publication[] = [];
  readonly rollbacks: Rollback[] = [];
  /** Awaited by publish, to hold a push in its last phase. */
  gate: Promise<void> = Promise.resolve();

  context(namespace: string, name: string): PushContext {
    if (this.error) throw this.error;
    if (name !== 'sql') throw new LorikeetError('adapter_not_found', 'There is no such adapter');
    const { earlier, config, geometry, maxBytes, maxRank, verify } = this;
    const desired = this.desired && { digest: this.desired.digest, step: this.desired.step };
    const adapter = {
      metadata: { namespace, name },
      spec: { source: { push: {} }, ...(verify ? { verify } : {}) },
    };
    const context = {
      adapter,
      servedName: 'sql-served',
      pods: this.pods,
      geometry,
      maxRank,
      maxBytes,
      desired,
      earlier,
      config,
      fence: { term: 4, sequence: 2 },
    };
    return context as unknown as PushContext;
  }

  held(namespace: string, name: string): Held {
    return this.context(namespace, name);
  }

  why(namespace: string, name: string): Why {
    const { servedName } = this.context(namespace, name);
    const pods = this.pods.map((pod) => {
      return { pod: pod.name, state: 'mismatched' as const, why: 'x' };
    });
    const placed = {
      mode: 'Fixed',
      priority: 0,
      requestsPerMinute: 0,
      wanted: 1,
      placed: 0,
      refusal: null,
    } as const;
    return { servedName, pool: 'team-a/llama', ...placed, pods };
  }

  admit(): void {
    if (this.quotaError) throw this.quotaError;
  }

  async publish(publication: Publication): Promise<PublishResult> {
    await this.gate;
    const { digest, step, bytes, rank, targetModules, staged, ifMatch, config } = publication;
    const pods = staged.map(({ pod, ok, ms }) => ({
      name: pod.name,
      state: ok ? ('active' as const) : ('failed' as const),
      ms,
    }));
    if (this.desired?.digest === digest) {
      return { revision: digest, step: this.desired.step, bytes, noop: true, pods, swap: null };
    }
    if (ifMatch !== null && (ifMatch === '*' ? this.desired === null : ifMatch !== this.desired?.digest)) {
      throw new LorikeetError('precondition_failed', 'Another revision is current', {
        expected: ifMatch,
        actual: this.desired?.digest ?? null,
      });
    }
    if (step !== null && this.desired?.step !== null && this.desired !== null && step <= this.desired.step) {
      throw new LorikeetError('step_not_newer', 'The step is not newer', {
        expected: this.desired.step + 1,
        actual: step,
      });
    }
    this.publications.push(publication);
    this.#become(revisionOf({ digest, step, bytes, rank, targetModules }, '2026-11-30T00:00:00Z'));
    this.config = config;
    return { revision: digest, step, bytes, noop: false, pods, swap: { durationMs: 3, skewMs: 1 } };
  }

  async rollback(order: Rollback): Promise<RollbackResult> {
    if (this.error) throw this.error;
    await this.gate;
    this.rollbacks.push(order);
    order.signal.throwIfAborted();
    const { desired, earlier } = this;
    const target = requireEarlier({ desired, earlier }, order.to);
    const from = desired?.digest ?? '';
    const noop = target.digest === from;
    if (!noop) this.#become({ ...target, rollback: { from, reachedStep: desired?.step ?? null } });
    const { digest: revision, step, bytes } = target;
    const pods = this.pods.map(({ name }) => ({ name, state: 'active' as const, ms: 1 }));
    return { revision, step, bytes, noop, pods, swap: null, previous: from, stageMs: 0 };
  }

  #become(revision: RevisionRecord): void {
    const before = this.desired === null ? [] : [this.desired];
    this.earlier = [...before, ...this.earlier].filter(({ digest }) => digest !== revision.digest);
    this.desired = revision;
  }
}
