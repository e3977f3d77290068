import { createHash } from 'node:crypto';
import { LorikeetError } from '../../server/contract/errors.ts';
import { API_GROUP, LORA_ADAPTERS } from '../api/lora-adapter.ts';
import { type Clock, systemClock } from '../kube/clock.ts';
import type { Log } from '../kube/log.ts';
import { pathOf, type Resource, SUBJECT_ACCESS_REVIEWS, TOKEN_REVIEWS } from '../kube/resource.ts';
import type { Rest } from '../kube/rest.ts';
import { Seldom } from './seldom.ts';
import { VerdictCache } from './verdict-cache.ts';

export interface Caller {
  username: string;
}

export interface Target {
  namespace: string;
  name: string;
  verb: 'update' | 'get';
}

export interface Auth {
  /** Who sends this token, if they may do this; `target` null asks only who. Throws unauthenticated or forbidden. */
  allow(token: string | null, target: Target | null): Promise<Caller>;
}

export interface TokenAuthOptions {
  rest: Pick<Rest, 'request'>;
  audience: string;
  log: Log;
  clock?: Clock;
}

interface User {
  username: string;
  uid?: string;
  groups?: string[];
  extra?: Record<string, string[]>;
}

interface TokenReview {
  status?: { authenticated?: boolean; audiences?: string[]; user?: Partial<User> };
}

interface SubjectAccessReview {
  status?: { allowed?: boolean; denied?: boolean };
}

const TOKEN_BYTES_MAX = 16 * 1024;
const REVIEW_TIMEOUT_MS = 5_000;
const SUBRESOURCE = 'tensors';
const CACHE = { positiveMs: 60_000, negativeMs: 5_000, entriesMax: 1024, pendingMax: 32 };

/** Asks the API server whose token it is and what its account may do. Keeps hashes of tokens, never tokens. */
export class TokenAuth implements Auth {
  readonly #options: TokenAuthOptions;
  readonly #users: VerdictCache<User>;
  readonly #access: VerdictCache<true>;
  readonly #failures: Seldom;

  constructor(options: TokenAuthOptions) {
    const clock = options.clock ?? systemClock;
    this.#options = options;
    this.#failures = new Seldom(clock);
    this.#users = new VerdictCache(CACHE, clock);
    this.#access = new VerdictCache(CACHE, clock);
  }

  async allow(token: string | null, target: Target | null): Promise<Caller> {
    if (token === null || token.length > TOKEN_BYTES_MAX) throw unauthenticated();
    const hash = createHash('sha256').update(token).digest('base64');
    const user = await this.#users.get(hash, () => this.#userOf(token));
    if (user === null) throw unauthenticated();
    if (target === null) return user;
    const key = `${hash} ${target.verb} ${target.namespace}/${target.name}`;
    if ((await this.#access.get(key, () => this.#mayDo(user, target))) === null) throw forbidden();
    return user;
  }

  async #userOf(token: string): Promise<User | null> {
    const { audience } = this.#options;
    const review: TokenReview = await this.#review(TOKEN_REVIEWS, { token, audiences: [audience] });
    const { authenticated, audiences, user } = review.status ?? {};
    // A server that knows no audiences leaves them out: the token could then be meant for anybody.
    if (authenticated !== true || !audiences?.includes(audience)) return null;
    return typeof user?.username === 'string' && user.username !== '' ? (user as User) : null;
  }

  async #mayDo(
    { username, uid, groups, extra }: User,
    { namespace, name, verb }: Target,
  ): Promise<true | null> {
    const resourceAttributes = {
      group: API_GROUP,
      resource: LORA_ADAPTERS.plural,
      subresource: SUBRESOURCE,
      namespace,
      name,
      verb,
    };
    const spec = { user: username, uid, groups, extra, resourceAttributes };
    const review: SubjectAccessReview = await this.#review(SUBJECT_ACCESS_REVIEWS, spec);
    return review.status?.allowed === true && review.status.denied !== true ? true : null;
  }

  async #review<T>(resource: Resource, spec: object): Promise<T> {
    const { group, version, kind } = resource;
    const body = { apiVersion: `${group}/${version}`, kind, spec };
    try {
      return await this.#options.rest.request<T>({
        method: 'POST',
        path: pathOf(resource),
        body,
        timeoutMs: REVIEW_TIMEOUT_MS,
        lane: 'review',
      });
    } catch (error) {
      // The error may quote the request, and the request holds the token: only its class and status are told.
      const status = error instanceof Error && 'status' in error ? error.status : undefined;
      const told = this.#failures.next();
      if (told !== null) {
        const about = { review: kind, status, ...told };
        this.#options.log.warn(about, 'the API server did not review a caller');
      }
      throw new LorikeetError(
        'timeout',
        'The API server did not say whether this call is allowed; try again.',
      );
    }
  }
}

export function bearerOf(authorization: string | undefined): string | null {
  return /^Bearer ([A-Za-z0-9\-._~+/]+=*)$/i.exec(authorization ?? '')?.[1] ?? null;
}

function unauthenticated(): LorikeetError {
  return new LorikeetError(
    'unauthenticated',
    'Expected a valid ServiceAccount token for the audience of this endpoint.',
  );
}

function forbidden(): LorikeetError {
  return new LorikeetError('forbidden', 'This account may not do that with this adapter.');
}
