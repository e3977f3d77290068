import { Agent, type Dispatcher } from 'undici';
import { ApiError, errorFromReply } from './api-error.ts';
import { lines, text } from './body.ts';
import { type Clock, deadline, systemClock } from './clock.ts';
import { type Credentials, credentialsFromKubeconfig, type TlsMaterial } from './credentials.ts';
import { type Log, silentLog } from './log.ts';
import { CallPace } from './pace.ts';

export { ApiError, isApiError } from './api-error.ts';

export interface Call {
  method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  /** As pathOf makes it. */
  path: string;
  query?: Record<string, string | number | boolean | undefined> | undefined;
  /** Sent as JSON. */
  body?: unknown;
  /** Default: application/json, and a merge patch for PATCH. */
  contentType?: string;
  signal?: AbortSignal | undefined;
  /** Of the whole call, its wait for a turn included. */
  timeoutMs?: number | undefined;
  lane?: Lane;
}

/** `lease` never waits for a turn; `review`, for which a trainer waits, does not wait behind what reconciling writes. */
export type Lane = 'lease' | 'review' | 'usual';

export type PacedLane = Exclude<Lane, 'lease'>;

export interface StreamCall {
  path: string;
  query?: Call['query'] | undefined;
  signal?: AbortSignal | undefined;
  /** The stream fails with ApiError Timeout after this long without a byte. */
  inactivityMs?: number;
}

export interface RestOptions {
  credentials: Credentials;
  clock?: Clock;
  userAgent?: string;
  /** Watches hold one each for as long as they live. */
  connectionsMax?: number;
  perSecondMax?: number;
  burst?: number;
  /** Of the lane of reviews. */
  reviewsPerSecondMax?: number;
  /** Told of each call, how long it waited for its turn, whether it then went out or gave up. */
  onWait?: ((lane: PacedLane, waitMs: number) => void) | undefined;
  /** Asked at the moment when a write of the usual lane goes out, however long ago it was called; false: it does not. */
  mayWrite?: (() => boolean) | undefined;
}

export interface KubeconfigOptions extends Omit<RestOptions, 'credentials'> {
  /** A path. Default: KUBECONFIG, ~/.kube/config, or the pod's own ServiceAccount. */
  kubeconfig?: string;
  log?: Log;
}

const TIMEOUT_MS = 15_000;
const INACTIVITY_MS = 45_000;
const NOT_LEADING = 'NotLeading';
const USER_AGENT = 'lorikeet-operator';

/** HTTP to one API server: one pool of kept-alive connections, credentials that may rotate, errors of one class. */
export class Rest {
  readonly #credentials: Credentials;
  readonly #clock: Clock;
  readonly #userAgent: string;
  readonly #connectionsMax: number;
  readonly #paces: Record<PacedLane, CallPace>;
  readonly #onWait: RestOptions['onWait'];
  readonly #mayWrite: () => boolean;
  #tls: TlsMaterial | null = null;
  #agent: Agent | null = null;

  static fromKubeconfig({ kubeconfig, log = silentLog, ...options }: KubeconfigOptions = {}): Rest {
    const credentials = credentialsFromKubeconfig(kubeconfig, options.clock ?? systemClock, log);
    return new Rest({ ...options, credentials });
  }

  constructor({
    credentials,
    clock = systemClock,
    userAgent = USER_AGENT,
    connectionsMax = 64,
    perSecondMax = 200,
    burst = 200,
    reviewsPerSecondMax = 25,
    onWait,
    mayWrite = () => true,
  }: RestOptions) {
    this.#credentials = credentials;
    this.#clock = clock;
    this.#userAgent = userAgent;
    this.#connectionsMax = connectionsMax;
    this.#onWait = onWait;
    this.#mayWrite = mayWrite;
    this.#paces = {
      review: new CallPace({ clock, perSecondMax: reviewsPerSecondMax, burst: 2 * reviewsPerSecondMax }),
      usual: new CallPace({ clock, perSecondMax, burst }),
    };
  }

  /** URL of the API server. */
  get server(): string {
    return this.#credentials.server;
  }

  /** The parsed reply; throws ApiError, or the signal's reason when it aborts. */
  async request<T>(call: Call): Promise<T> {
    const pace = this.#paceOf(call.lane);
    const what = `${call.method} ${call.path}`;
    const timeoutMs = call.timeoutMs ?? TIMEOUT_MS;
    const limit = deadline(this.#clock, timeoutMs, call.signal, () =>
      noReply('Timeout', what, `none in ${timeoutMs} ms`),
    );
    let begun = false;
    try {
      await this.#turn(call.lane, limit.signal);
      limit.signal.throwIfAborted();
      begun = true;
      const reply = await this.#send(call, what, limit.signal);
      const body = await text(reply.body);
      pace?.succeeded();
      return parseReply<T>(what, body);
    } catch (error) {
      const failure = judge(error, what, limit.signal);
      if (begun) learn(pace, failure);
      throw failure;
    } finally {
      limit.clear();
    }
  }

  /** The lines of a reply that does not end soon; throws as `request` does. Ends when the server ends it. */
  async *stream({
    inactivityMs = INACTIVITY_MS,
    ...call
  }: StreamCall): AsyncGenerator<string, void, undefined> {
    const pace = this.#paces.usual;
    await this.#turn('usual', call.signal);
    const what = `WATCH ${call.path}`;
    let begun = false;
    const silent = () => noReply('Timeout', what, `silent for ${inactivityMs} ms`);
    const limit = deadline(this.#clock, inactivityMs, call.signal, silent);
    try {
      const reply = await this.#send({ ...call, method: 'GET' }, what, limit.signal);
      begun = true;
      yield* lines(reply.body, limit.extend);
    } catch (error) {
      const failure = judge(error, what, limit.signal);
      // A stream that falls silent or breaks is no sign of distress.
      if (!begun) learn(pace, failure);
      throw failure;
    } finally {
      if (begun) pace.succeeded();
      limit.clear();
    }
  }

  async close(): Promise<void> {
    await this.#agent?.destroy();
  }

  /** A reply below 400, its body unread. */
  async #send(call: Call, what: string, signal: AbortSignal): Promise<Dispatcher.ResponseData> {
    let reply = await this.#dispatch(call, false, signal);
    if (reply.statusCode === 401) {
      await reply.body.dump();
      reply = await this.#dispatch(call, true, signal);
    }
    if (reply.statusCode < 400) return reply;
    throw errorFromReply(what, reply.statusCode, reply.headers['retry-after'], await text(reply.body));
  }

  async #dispatch(call: Call, readAgain: boolean, signal: AbortSignal): Promise<Dispatcher.ResponseData> {
    signal.throwIfAborted();
    const authorization = await this.#credentials.authorization(readAgain);
    const tls = await this.#credentials.tls();
    const url = new URL(`${this.#credentials.server}${call.path}`);
    for (const [name, value] of Object.entries(call.query ?? {})) {
      if (value !== undefined) url.searchParams.set(name, String(value));
    }
    const isWrite = call.method !== 'GET' && (call.lane ?? 'usual') === 'usual';
    if (isWrite && !this.#mayWrite()) throw notWritten(call);
    const usual = call.method === 'PATCH' ? 'application/merge-patch+json' : 'application/json';
    return this.#agentFor(tls).request({
      origin: url.origin,
      path: url.pathname + url.search,
      method: call.method,
      headers: {
        accept: 'application/json',
        'user-agent': this.#userAgent,
        ...(authorization !== null && { authorization }),
        ...(call.body !== undefined && { 'content-type': call.contentType ?? usual }),
      },
      body: call.body === undefined ? null : JSON.stringify(call.body),
      signal,
    });
  }

  #agentFor(tls: TlsMaterial): Agent {
    if (this.#agent !== null && tls === this.#tls) return this.#agent;
    const old = this.#agent;
    this.#tls = tls;
    this.#agent = new Agent({
      connections: this.#connectionsMax,
      connect: { ...tls, timeout: 10_000 },
      keepAliveTimeout: 60_000,
      // Deadlines are ours (`deadline`), so that they follow the injected clock.
      headersTimeout: 0,
      bodyTimeout: 0,
      allowH2: false,
    });
    // Calls under way end on the old certificates; close waits for them.
    old?.close().catch(() => old.destroy());
    return this.#agent;
  }

  async #turn(lane: Lane = 'usual', signal: AbortSignal | undefined): Promise<void> {
    if (lane === 'lease') return;
    const startedMs = this.#clock.monotonicMs();
    await this.#paces[lane].turn(signal);
    this.#onWait?.(lane, this.#clock.monotonicMs() - startedMs);
  }

  #paceOf(lane: Lane = 'usual'): CallPace | null {
    return lane === 'lease' ? null : this.#paces[lane];
  }
}

function learn(pace: CallPace | null, failure: unknown): void {
  if (!(failure instanceof ApiError)) return;
  if (failure.reason === NOT_LEADING) return;
  if (failure.retryable) pace?.failed(failure.retryAfterMs);
  else pace?.succeeded();
}

/** What the caller should see of a failure: the reason of the abort, an ApiError, or a bug as it is. */
function judge(error: unknown, what: string, signal: AbortSignal): unknown {
  if (signal.aborted) return signal.reason;
  if (error instanceof ApiError || error instanceof TypeError || error instanceof RangeError) return error;
  return noReply('Unreachable', what, String(error), error);
}

function noReply(reason: string, what: string, why: string, cause?: unknown): ApiError {
  return new ApiError({ status: 0, reason }, `${what}: no reply: ${why}`, { cause });
}

function notWritten({ method, path }: Call): ApiError {
  return new ApiError(
    { status: 0, reason: NOT_LEADING },
    `${method} ${path}: not sent: this process does not lead`,
  );
}

function parseReply<T>(what: string, body: string): T {
  if (body === '') return undefined as T;
  try {
    return JSON.parse(body) as T;
  } catch (error) {
    throw noReply('Malformed', what, 'the body is not JSON', error);
  }
}
