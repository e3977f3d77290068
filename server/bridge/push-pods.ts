import {
  ActivateReply,
  ActivateRequest,
  MEDIA_TYPE,
  RemoveReply,
  StageReply,
} from '../contract/adapter-api.ts';
import { writeAllow, writeConfig, writeContent, writeStep } from '../contract/headers.ts';
import { PodUnreachable } from '../transfer/unreachable.ts';
import { call, type Push, type PushCalls, type PushTarget, requireRevision } from './push.ts';

/** The admin APIs of all pods of a fleet that has no operator. */
export class PodsPush implements PushTarget {
  readonly #adminUrls: readonly string[];
  readonly #baseModel: () => Promise<string>;
  readonly #calls: PushCalls;

  constructor(adminUrls: readonly string[], baseModel: () => Promise<string>, calls: PushCalls) {
    this.#adminUrls = adminUrls;
    this.#baseModel = baseModel;
    this.#calls = calls;
  }

  /** An adapter under the base's name has another one in pods, so that they never mean it where the base is meant. */
  async servedName(adapter: string): Promise<string> {
    const baseModel = await this.#baseModel();
    return adapter === baseModel ? `${baseModel}:lora` : adapter;
  }

  /** Current in no pod before all have it that answer: one that is gone must not end a training. */
  async push(push: Push): Promise<{ skewMs: number }> {
    const staged = await onThere(this.#adminUrls, push.signal, (url, signal) =>
      this.#stage(url, { ...push, signal }),
    );
    const done = await onThere([...staged.keys()], push.signal, (url, signal) =>
      this.#activate(url, { ...push, signal }),
    );
    const doneMs = [...done.values()];
    return { skewMs: Math.max(...doneMs) - Math.min(...doneMs) };
  }

  async remove(served: string, signal: AbortSignal): Promise<boolean> {
    await onThere(this.#adminUrls, signal, (url, life) =>
      call(this.#calls, {
        method: 'DELETE',
        url: adapterUrl(url, served),
        reply: RemoveReply,
        signal: life,
      }),
    );
    return true;
  }

  async #stage(adminUrl: string, { served, step, tensors, signal }: Push): Promise<void> {
    const { revision } = await call(this.#calls, {
      method: 'PUT',
      url: `${adapterUrl(adminUrl, served)}/revisions/${tensors.revision}`,
      headers: {
        ...writeContent(MEDIA_TYPE, tensors.bytes),
        ...writeConfig(tensors.config),
        ...writeStep(step),
        // The first one that a trainer writes has B = 0.
        ...writeAllow(['zero_effect']),
      },
      body: tensors,
      reply: StageReply,
      signal,
    });
    requireRevision(tensors.revision, revision);
  }

  /** When it was done. */
  async #activate(adminUrl: string, { served, tensors, keep, signal }: Push): Promise<number> {
    const request: ActivateRequest = { revision: tensors.revision, keep: keep - 1 };
    const body = JSON.stringify(ActivateRequest.parse(request));
    const { revision } = await call(this.#calls, {
      method: 'POST',
      url: `${adapterUrl(adminUrl, served)}/activate`,
      headers: writeContent('application/json', Buffer.byteLength(body)),
      body,
      reply: ActivateReply,
      signal,
    });
    requireRevision(tensors.revision, revision);
    return performance.now();
  }
}

/**
 * What came of it in each pod that answers, at least one. Ends when none runs any more; the first refusal ends the others,
 * and is what is thrown.
 */
async function onThere<T>(
  urls: readonly string[],
  signal: AbortSignal,
  act: (url: string, life: AbortSignal) => Promise<T>,
): Promise<Map<string, T>> {
  const refused = new AbortController();
  const life = AbortSignal.any([signal, refused.signal]);
  const done = new Map<string, T>();
  let gone: unknown;
  await Promise.all(
    urls.map(async (url) => {
      try {
        done.set(url, await act(url, life));
      } catch (error) {
        if (error instanceof PodUnreachable) gone = error;
        else refused.abort(error);
      }
    }),
  );
  refused.signal.throwIfAborted();
  if (done.size === 0 || signal.aborted) throw gone ?? signal.reason;
  return done;
}

function adapterUrl(adminUrl: string, served: string): string {
  return `${adminUrl}/lora/v1/adapters/${encodeURIComponent(served)}`;
}
