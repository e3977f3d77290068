import type { Dispatcher } from 'undici';
import type { z } from 'zod';
import {
  ActivateReply,
  ActivateRequest,
  type Fence,
  MEDIA_TYPE,
  PodState,
  RemoveReply,
  StageReply,
} from '../../server/contract/adapter-api.ts';
import { LorikeetError } from '../../server/contract/errors.ts';
import {
  decodeConfig,
  readConfig,
  writeAllow,
  writeConfig,
  writeContent,
  writeFence,
  writeRelay,
  writeStep,
  writeWatch,
} from '../../server/contract/headers.ts';
import { exchange, jsonOrNull, type PodCall, readText } from '../../server/transfer/call.ts';
import { stallGuarded } from '../../server/transfer/stall-guard.ts';
import { PodUnreachable, rootMessage } from '../../server/transfer/unreachable.ts';
import { type Clock, systemClock } from '../kube/clock.ts';
import { Breaker } from './breaker.ts';
import { applyChanges } from './changes.ts';
import { type ServerEvent, serverEvents } from './events.ts';
import { Limiter } from './limiter.ts';
import { parsed, Reports } from './reports.ts';
import type { TokenSource } from './token.ts';

/** Of each kind at the same time, so that a slow trainer or a long copy holds up no short call, nor each other. */
const PLACES = { short: 4, upload: 16, copy: 4 };
/** Of one pod: all calls at the same time, and the watch. */
export const CONNECTIONS_MAX = PLACES.short + PLACES.upload + PLACES.copy + 1;

export interface PodTimeouts {
  /** state, activate, remove, seeded: the whole call. */
  shortMs: number;
  /** stage: how long the pod may leave a chunk untaken. */
  stallMs: number;
  /** stage: from the last byte sent to the reply (check and pack); fetch: between two chunks. */
  silenceMs: number;
  /** stage, fetch: the whole call. */
  transferMs: number;
  /** watch: without any byte, keep-alive comments included. */
  watchIdleMs: number;
}

export const POD_TIMEOUTS: PodTimeouts = {
  shortMs: 5_000,
  stallMs: 10_000,
  silenceMs: 60_000,
  transferMs: 600_000,
  watchIdleMs: 25_000,
};

export interface StageOptions {
  config: unknown | null;
  step: number | null;
  fence: Fence;
  /** Checks to waive: see HEADER.allow. */
  allow?: readonly string[];
  /** Of an upload: admin addresses of the pods that this one is to pass the body on to. */
  relay?: readonly string[];
  signal: AbortSignal;
}

export interface PodClientOptions {
  /** `http://10.1.2.3:8001` */
  adminUrl: string;
  dispatcher: Dispatcher;
  token: TokenSource;
  /** Aborts every call: the pod is gone. */
  life: AbortSignal;
  clock?: Clock;
  timeouts?: PodTimeouts;
  /** Of all pods that say much the same; its own by default. */
  reports?: Reports;
  /** Asked at the moment when a call that changes the pod goes out, however long it waited; false: it does not. */
  mayAct?: () => boolean;
}

type Bytes = AsyncIterable<Uint8Array> | Buffer;
type Send = Omit<PodCall, 'url' | 'headers' | 'dispatcher'> & {
  path: string;
  headers?: Record<string, string>;
};

/** The admin API of one pod. A pod that hangs costs its callers a bounded time, then nothing until it answers again. */
export class PodClient {
  readonly adminUrl: string;
  readonly breaker: Breaker;
  readonly #options: PodClientOptions;
  readonly #timeouts: PodTimeouts;
  readonly #reports: Reports;
  /** Where it is rotated, pods change one after the other. */
  #accepted: string | null = null;
  /** The last event of a watch, and the state after it. */
  #watched: { id: string; state: PodState } | null = null;
  readonly #places = {
    short: new Limiter(PLACES.short),
    upload: new Limiter(PLACES.upload),
    copy: new Limiter(PLACES.copy),
  };

  constructor(options: PodClientOptions) {
    this.adminUrl = options.adminUrl;
    this.breaker = new Breaker(options.clock ?? systemClock);
    this.#options = options;
    this.#timeouts = options.timeouts ?? POD_TIMEOUTS;
    this.#reports = options.reports ?? new Reports();
  }

  /** False while calls would be turned away at once, because the last ones got no answer. */
  get responsive(): boolean {
    return this.breaker.waitMs === 0;
  }

  state(signal: AbortSignal): Promise<PodState> {
    return this.#short({ method: 'GET', path: '/lora/v1/state', signal }, PodState);
  }

  /**
   * The pod's state at once and after each change; a watch after another goes on from where that was. Not under the
   * breaker: it closes it.
   */
  async *watch(signal: AbortSignal): AsyncGenerator<PodState> {
    const silenceMs = this.#timeouts.watchIdleMs;
    const firstByteMs = this.#timeouts.shortMs;
    const life = AbortSignal.any([signal, this.#options.life]);
    const headers = writeWatch(this.#watched?.id ?? null);
    const path = '/lora/v1/watch';
    const response = await this.#authorized({
      method: 'GET',
      path,
      headers,
      signal: life,
      silenceMs,
      firstByteMs,
    });
    try {
      for await (const event of serverEvents(response.body)) {
        this.breaker.succeeded();
        const state = this.#stateAfter(event);
        this.#watched = { id: event.id, state };
        yield state;
      }
    } catch (error) {
      throw error instanceof PodUnreachable ? error : new PodUnreachable(rootMessage(error), error);
    }
    throw new PodUnreachable('the pod ended the watch');
  }

  /** A stream that is not understood is not gone on with. */
  #stateAfter({ type, data }: ServerEvent): PodState {
    const before = this.#watched?.state;
    this.#watched = null;
    if (type !== 'changes') return this.#reports.state(data);
    if (before === undefined) throw new PodUnreachable('changes came before the state that they change');
    return applyChanges(before, this.#reports.changes(data));
  }

  stage(
    name: string,
    digest: string,
    body: Bytes,
    options: StageOptions & { size: number },
  ): Promise<StageReply> {
    const path = revisionPath(name, digest);
    return this.#send({ method: 'PUT', path, places: this.#places.copy }, body, options);
  }

  /** For tensors whose digest is not known before their last byte. */
  upload(name: string, body: Bytes, options: StageOptions & { size: number | null }): Promise<StageReply> {
    const path = `${adapterPath(name)}/revisions`;
    return this.#send({ method: 'POST', path, places: this.#places.upload }, body, options);
  }

  /** The body must be read to its end or returned early: it holds one of the pod's few calls. */
  async fetch(
    name: string,
    digest: string,
    signal: AbortSignal,
  ): Promise<{ config: unknown; size: number; body: AsyncIterable<Uint8Array> }> {
    const turn = { places: this.#places.copy, signal, limitMs: this.#timeouts.transferMs };
    const response = await this.#guarded(turn, (life) =>
      this.#authorized({
        method: 'GET',
        path: revisionPath(name, digest),
        signal: life,
        silenceMs: this.#timeouts.silenceMs,
      }),
    );
    const header = readConfig(response.headers);
    const config = header === undefined ? null : jsonOrNull(decodeConfig(header).toString());
    return { config, size: Number(response.headers['content-length']), body: response.body };
  }

  activate(
    name: string,
    request: ActivateRequest,
    fence: Fence,
    signal: AbortSignal,
  ): Promise<ActivateReply> {
    const body = JSON.stringify(ActivateRequest.parse(request));
    const headers = { ...writeContent('application/json', Buffer.byteLength(body)), ...writeFence(fence) };
    const path = `${adapterPath(name)}/activate`;
    return this.#short({ method: 'POST', path, headers, body, signal }, ActivateReply);
  }

  /** `digest` null: the adapter with all its revisions. */
  remove(name: string, digest: string | null, fence: Fence, signal: AbortSignal): Promise<RemoveReply> {
    const path = digest === null ? adapterPath(name) : revisionPath(name, digest);
    return this.#short({ method: 'DELETE', path, headers: writeFence(fence), signal }, RemoveReply);
  }

  async seeded(fence: Fence, signal: AbortSignal): Promise<void> {
    const headers = writeFence(fence);
    await this.#shortText({ method: 'POST', path: '/lora/v1/seeded', headers, signal });
  }

  async #send(
    { method, path, places }: { method: 'PUT' | 'POST'; path: string; places: Limiter },
    body: Bytes,
    options: StageOptions & { size: number | null },
  ): Promise<StageReply> {
    const { config, step, fence, size, signal, allow = [], relay = [] } = options;
    const stalled = new AbortController();
    const headers = {
      ...writeContent(MEDIA_TYPE, size),
      ...(config === null ? {} : writeConfig(config)),
      ...writeStep(step),
      ...writeFence(fence),
      ...writeAllow(allow),
      ...writeRelay(relay),
    };
    const onStall = () => stalled.abort(new PodUnreachable(`took no byte for ${this.#timeouts.stallMs} ms`));
    const turn = { places, signal, limitMs: this.#timeouts.transferMs };
    const text = await this.#guarded(turn, async (deadline) => {
      const life = AbortSignal.any([deadline, stalled.signal]);
      const stream = stallGuarded(body, this.#timeouts.stallMs, onStall);
      const silenceMs = this.#timeouts.silenceMs;
      try {
        const response = await this.#authorized({
          method,
          path,
          headers,
          body: stream,
          signal: life,
          silenceMs,
        });
        return await readText(response.body, life);
      } finally {
        stream.destroy();
      }
    });
    return parsed(StageReply, text);
  }

  async #short<T>(send: Omit<Send, 'silenceMs'>, schema: z.ZodType<T>): Promise<T> {
    return parsed(schema, await this.#shortText(send));
  }

  #shortText(send: Omit<Send, 'silenceMs'>): Promise<string> {
    const silenceMs = this.#timeouts.shortMs;
    const turn = { places: this.#places.short, signal: send.signal, limitMs: silenceMs };
    return this.#guarded(turn, async (signal) => {
      const response = await this.#authorized({ ...send, signal, silenceMs });
      return await readText(response.body, signal);
    });
  }

  /**
   * Waits for its turn at this pod, for which the pod is not to blame, then counts the outcome: a refusal is an answer,
   * silence is not, a caller that left is neither. The call has the whole of its time, however long it waited.
   */
  async #guarded<T>(
    { places, signal, limitMs }: { places: Limiter; signal: AbortSignal; limitMs: number },
    call: (life: AbortSignal) => Promise<T>,
  ): Promise<T> {
    try {
      const waiting = AbortSignal.any([signal, this.#options.life]);
      return await places.run(waiting, () => this.#counted(signal, limitMs, call));
    } catch (error) {
      if (error instanceof LorikeetError || error instanceof PodUnreachable) throw error;
      throw new PodUnreachable(rootMessage(error), error);
    }
  }

  async #counted<T>(
    caller: AbortSignal,
    limitMs: number,
    call: (life: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const waitMs = this.breaker.waitMs;
    if (waitMs > 0) throw new BreakerOpen(waitMs);
    try {
      const result = await call(this.#deadline(caller, limitMs));
      this.breaker.succeeded();
      return result;
    } catch (error) {
      if (error instanceof LorikeetError) this.breaker.succeeded();
      else if (!caller.aborted) this.breaker.failed();
      throw error;
    }
  }

  /** With the token that the pod took last, else with each that it may want, where the body can be sent again. */
  async #authorized(send: Send): Promise<Dispatcher.ResponseData> {
    const isRepeatable = send.body === undefined || typeof send.body === 'string';
    const refused = new Set<string>();
    let refusal: unknown = null;
    for await (const token of this.#tokens()) {
      if (refused.has(token)) continue;
      if (refused.size > 0 && !isRepeatable) break;
      try {
        const response = await this.#exchange(send, token);
        this.#accepted = token;
        return response;
      } catch (error) {
        if (!(error instanceof LorikeetError) || error.code !== 'unauthenticated') throw error;
        refusal = error;
        refused.add(token);
      }
    }
    this.#accepted = null;
    throw refusal;
  }

  async *#tokens(): AsyncGenerator<string> {
    const { token } = this.#options;
    const current = await this.#token(() => token.token());
    yield this.#accepted ?? current;
    yield current;
    // A refused one is read again: the Secret may have others by now.
    yield await this.#token(() => token.tokenAfterRefusal());
    yield* token.earlier;
  }

  async #token(read: () => Promise<string>): Promise<string> {
    try {
      return await read();
    } catch (error) {
      throw new PodUnreachable(`the admin token cannot be read: ${rootMessage(error)}`, error);
    }
  }

  async #exchange(send: Send, token: string): Promise<Dispatcher.ResponseData> {
    const { path, headers, ...rest } = send;
    const { mayAct = () => true } = this.#options;
    if (send.method !== 'GET' && !mayAct())
      throw new LorikeetError('not_leader', 'This operator process does not lead');
    const url = `${this.adminUrl}${path}`;
    return await exchange({
      ...rest,
      url,
      headers: { ...headers, authorization: `Bearer ${token}` },
      dispatcher: this.#options.dispatcher,
    });
  }

  #deadline(signal: AbortSignal, ms: number): AbortSignal {
    return AbortSignal.any([signal, this.#options.life, AbortSignal.timeout(ms)]);
  }
}

class BreakerOpen extends PodUnreachable {
  constructor(waitMs: number) {
    super(`the pod did not answer several calls in a row; next try in ${Math.ceil(waitMs / 1000)} s`);
    this.name = 'BreakerOpen';
  }
}

const adapterPath = (name: string) => `/lora/v1/adapters/${encodeURIComponent(name)}`;
const revisionPath = (name: string, digest: string) => `${adapterPath(name)}/revisions/${digest}`;
