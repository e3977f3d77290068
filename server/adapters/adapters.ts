import { type Acceptance, type Fence, HEADER } from '../contract/adapter-api.ts';
import { expected } from '../contract/errors.ts';
import { type Expectation, meetsExpectation } from '../contract/expectation.ts';

/** One revision under one served name. */
export interface Revision {
  digest: string;
  step: number | null;
  /** Asked to go, but sequences still run on it. */
  retired: boolean;
  bytes: number;
  rank: number;
  modules: string[];
  /** Unix seconds. */
  createdAt: number;
  /** Grows with each activation in the pod; null where it was never current. */
  activation: number | null;
}

export interface Adapter {
  name: string;
  current: string | null;
  /** What a later push must be above: the step of the current revision, or of the last one before it that had one. */
  reachedStep: number | null;
  /** Of the activation that made `current` current; null where no operator did. */
  fence: Fence | null;
  /** What that activation said of when an operator accepted `current`. */
  accepted: Acceptance | null;
  /** Whether `current` became so by a rollback. */
  rolledBack: boolean;
  /** The highest of all activations of this name: what an operator's call must not be below. */
  highestFence: Fence | null;
  revisions: Map<string, Revision>;
}

/** The served names of a pod and their revisions. Decides and remembers; knows no engine and no bytes. */
export class Adapters {
  readonly #byName = new Map<string, Adapter>();
  /** Names by each digest that they have, retired or not. */
  readonly #names = new Map<string, Set<string>>();
  readonly #listeners: ((name: string) => void)[] = [];
  #activations = 0;

  /** Calls the listener with each name of which something is no more as it was; it must not throw. */
  onTouched(listener: (name: string) => void): void {
    this.#listeners.push(listener);
  }

  all(): Adapter[] {
    return [...this.#byName.values()];
  }

  find(name: string): Adapter | undefined {
    return this.#byName.get(name);
  }

  /** Puts a revision under a name. The same digest again keeps what is known and takes the later step. */
  add(name: string, revision: Revision): Revision {
    const adapter = this.#byName.get(name) ?? {
      name,
      current: null,
      reachedStep: null,
      fence: null,
      accepted: null,
      rolledBack: false,
      highestFence: null,
      revisions: new Map<string, Revision>(),
    };
    this.#byName.set(name, adapter);
    this.#touch(name);
    const known = adapter.revisions.get(revision.digest);
    if (known === undefined) {
      adapter.revisions.set(revision.digest, revision);
      this.#names.set(revision.digest, (this.#names.get(revision.digest) ?? new Set()).add(name));
      return revision;
    }
    known.retired = false;
    if (revision.step !== null && revision.step > (known.step ?? -1)) known.step = revision.step;
    return known;
  }

  makeCurrent(
    adapter: Adapter,
    digest: string,
    { fence, accepted }: { fence: Fence | null; accepted: Acceptance | null },
  ): void {
    const revision = adapter.revisions.get(digest);
    if (revision === undefined) return;
    revision.activation = ++this.#activations;
    if (adapter.current !== digest) adapter.rolledBack = false;
    adapter.current = digest;
    adapter.reachedStep = revision.step ?? adapter.reachedStep;
    adapter.fence = fence;
    adapter.accepted = accepted;
    if (fence !== null) adapter.highestFence = fence;
    this.#touch(adapter.name);
  }

  /** The name stands for no revision any more, and keeps those it has. */
  withdraw(adapter: Adapter): void {
    adapter.current = null;
    this.#touch(adapter.name);
  }

  retire(adapter: Adapter, revision: Revision): void {
    revision.retired = true;
    this.#touch(adapter.name);
  }

  /** Takes a revision from a name, and the name away with its last one. */
  remove(adapter: Adapter, digest: string): void {
    if (adapter.current === digest) adapter.current = null;
    adapter.revisions.delete(digest);
    if (adapter.revisions.size === 0) this.#byName.delete(adapter.name);
    const names = this.#names.get(digest);
    names?.delete(adapter.name);
    if (names?.size === 0) this.#names.delete(digest);
    this.#touch(adapter.name);
  }

  /** Names that let go of a revision whose sequences still run: it serves again, so these count as the others' now. */
  forgetRetired(digest: string): void {
    for (const adapter of this.having(digest)) {
      if (adapter.revisions.get(digest)?.retired) this.remove(adapter, digest);
    }
  }

  /** Served names under which a revision is, other than as a retired one. */
  namesOf(digest: string): Adapter[] {
    return this.having(digest).filter((adapter) => adapter.revisions.get(digest)?.retired === false);
  }

  /** The same, and those under which it is a retired one. */
  having(digest: string): Adapter[] {
    return [...(this.#names.get(digest) ?? [])].flatMap((name) => this.#byName.get(name) ?? []);
  }

  /** Whether a name stands for it while others of its revisions have leases. */
  isAwaited(digest: string, leased: Set<string>): boolean {
    return this.having(digest).some(
      ({ current, revisions }) =>
        current === digest && [...revisions.keys()].some((other) => other !== digest && leased.has(other)),
    );
  }

  /** Digests of all current revisions. */
  currents(): Set<string> {
    return new Set(this.all().flatMap(({ current }) => (current === null ? [] : [current])));
  }

  #touch(name: string): void {
    for (const listener of this.#listeners) listener(name);
  }
}

/** Earlier current revisions beyond the `keep` last ones. What was never current is not superseded and stays. */
export function superseded(adapter: Adapter, keep: number): Revision[] {
  return [...adapter.revisions.values()]
    .filter(
      ({ digest, activation, retired }) => digest !== adapter.current && activation !== null && !retired,
    )
    .sort((a, b) => (b.activation ?? 0) - (a.activation ?? 0))
    .slice(keep);
}

/**
 * What a rollback makes current: the one of that digest or step, else the one that was current before. A second rollback
 * to that would be back at the revision that the first one left, so it stays where it is.
 */
export function requireEarlier(adapter: Adapter, to: string | number | undefined): Revision {
  const { current, rolledBack } = adapter;
  const earlier = [...adapter.revisions.values()]
    .filter(({ activation, retired }) => activation !== null && !retired)
    .sort((a, b) => (b.activation ?? 0) - (a.activation ?? 0));
  const stays = rolledBack && current !== null;
  const found = earlier.find(({ digest, step }) => {
    return to === undefined ? (digest === current) === stays : digest === to || step === to;
  });
  if (found !== undefined) return found;
  throw expected('revision_not_found', 'to', 'an earlier revision that is kept', to);
}

/** The revision that `selector` pins: `step-<n>` or the first digits of the digest. */
export function findPinned(adapter: Adapter, selector: string): Revision | undefined {
  const revisions = [...adapter.revisions.values()].filter(({ retired }) => !retired);
  const step = /^step-(\d+)$/.exec(selector)?.[1];
  if (step !== undefined) return revisions.findLast((revision) => revision.step === Number(step));
  const digits = /^(?:sha256:)?([0-9a-f]{6,64})$/.exec(selector)?.[1];
  if (digits === undefined) return undefined;
  const found = revisions.filter(({ digest }) => digest.startsWith(`sha256:${digits}`));
  return found.length === 1 ? found[0] : undefined;
}

/**
 * The revision that a request with this expectation runs on: the current one where it meets it. A digest also means an
 * earlier one that is kept; one that was never current waits for its activation, and so does a step for a later one.
 */
export function findExpected(adapter: Adapter, expectation: Expectation): Revision | undefined {
  const current = adapter.current === null ? undefined : adapter.revisions.get(adapter.current);
  if (current !== undefined && !current.retired && meetsExpectation(current, expectation)) return current;
  if (expectation.kind === 'min_step') return undefined;
  const kept = findPinned(adapter, expectation.prefix);
  return kept?.activation == null ? undefined : kept;
}

/** A step must grow within an adapter; the same content again is a retry. */
export function requireNewerStep(
  adapter: Adapter | undefined,
  step: number | null,
  digest: string | null,
): void {
  if (step === null || adapter === undefined || adapter.current === digest) return;
  const { reachedStep } = adapter;
  if (reachedStep === null || step > reachedStep) return;
  throw expected('step_not_newer', HEADER.step, `above ${reachedStep}`, step);
}

/** Compare-and-swap; undefined asks for no check, `*` for any revision to be current. */
export function requireCurrent(adapter: Adapter | undefined, digest: string | null | undefined): void {
  const actual = adapter?.current ?? null;
  if (digest === undefined || digest === actual || (digest === '*' && actual !== null)) return;
  const want = { words: `${digest ?? 'no revision'} as the current one`, value: digest };
  throw expected('precondition_failed', 'expectCurrent', want, actual);
}
