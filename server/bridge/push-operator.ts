import { z } from 'zod';
import { AdapterName, Digest, HEADER, MEDIA_TYPE, Step } from '../contract/adapter-api.ts';
import { expected, LorikeetError } from '../contract/errors.ts';
import { writeAllow, writeConfig, writeContent, writeStep } from '../contract/headers.ts';
import { call, type Push, type PushCalls, type PushTarget, requireRevision } from './push.ts';

/** An operator answers within this time of a push, with those pods that have it by then. */
const ACTIVE_SECONDS = 30;

const Listed = z.object({ servedName: AdapterName });
const Pushed = z.object({
  revision: Digest,
  step: Step,
  swap: z.object({ skewMs: z.number().nonnegative() }).nullable(),
});

/** An operator's push endpoint. `object` null: each adapter is the LoraAdapter of its own name. */
export class OperatorPush implements PushTarget {
  readonly #namespaceUrl: string;
  readonly #object: string | null;
  readonly #calls: PushCalls;
  /** Of the trainer's adapter, which is the only one where there is one object. */
  readonly #served = new Map<string, string>();

  constructor(namespaceUrl: string, object: string | null, calls: PushCalls) {
    this.#namespaceUrl = namespaceUrl;
    this.#object = object;
    this.#calls = calls;
  }

  async servedName(adapter: string, signal: AbortSignal): Promise<string> {
    const known = this.#served.get(adapter);
    if (known !== undefined) return known;
    const [other] = this.#served.keys();
    if (this.#object !== null && other !== undefined)
      throw expected('invalid_name', 'lora_name', `${other}, as --push names one LoraAdapter,`, adapter);
    const listed = await call(this.#calls, {
      method: 'GET',
      url: this.#urlOf(adapter),
      reply: Listed,
      signal,
    });
    this.#served.set(adapter, listed.servedName);
    return listed.servedName;
  }

  async push({ adapter, step, tensors, signal }: Push): Promise<{ skewMs: number | null }> {
    const { revision, swap } = await call(this.#calls, {
      method: 'PUT',
      url: `${this.#urlOf(adapter)}?wait=active&timeout=${ACTIVE_SECONDS}s`,
      headers: {
        ...writeContent(MEDIA_TYPE, tensors.bytes),
        ...writeConfig(tensors.config),
        ...writeStep(step),
        // The first one that a trainer writes has B = 0.
        ...writeAllow(['zero_effect']),
        [HEADER.contentDigest]: `sha-256=:${Buffer.from(tensors.sha256, 'hex').toString('base64')}:`,
      },
      body: tensors,
      reply: Pushed,
      signal,
    }).catch(explain);
    requireRevision(tensors.revision, revision);
    return { skewMs: swap?.skewMs ?? null };
  }

  /** The object is its owner's. */
  async remove(): Promise<boolean> {
    return false;
  }

  #urlOf(adapter: string): string {
    return `${this.#namespaceUrl}/adapters/${encodeURIComponent(this.#object ?? adapter)}/revisions`;
  }
}

/** As a trainer that was started anew meets it: its counter begins at 1 again. */
function explain(error: unknown): never {
  if (!(error instanceof LorikeetError) || error.code !== 'step_not_newer') throw error;
  const { code, field, expected, actual } = error;
  const remedy = 'an operator takes newer steps only. Load under another name, or make the LoraAdapter anew';
  const detail = field === undefined ? { expected, actual } : { field, expected, actual };
  throw new LorikeetError(code, `${error.message}: ${remedy}`, { ...detail, cause: error });
}
