import type { PodState, RevisionState } from '../../server/contract/adapter-api.ts';
import { heldIn } from '../pods/held.ts';
import { hasFreed, type Pod } from '../pods/pod.ts';

/** What this operator last heard from a pod about a revision, where it was no success. */
export interface Attempt {
  bootId: string;
  digest: string;
  /** In a row. */
  failures: number;
  /** A code of the contract, or `Unreachable`. */
  code: string;
  message: string;
  /** The pod refused the revision for what it is: asking again would not help. */
  terminal: boolean;
  /** Monotonic. */
  retryAtMs: number;
  /** The same on the wall clock. */
  retryAt: Date;
  /** What was taken in the pod then; null: it had not reported. */
  used: PodState['used'] | null;
}

/** What a pod has answered and its own reports do not show yet. */
export interface Confirmed {
  bootId: string;
  digest: string;
  as: 'held' | 'current';
  /** Monotonic: it is asked again after that. */
  untilMs: number;
}

export type Observed = 'unreachable' | 'absent' | 'held' | 'current';
export type Action = 'none' | 'stage' | 'activate' | 'refused' | 'backoff' | 'hold' | 'wait';

export interface Row {
  pod: Pod;
  observed: Observed;
  action: Action;
  attempt: Attempt | null;
  /** Null where the pod's report shows it by now, or never will. */
  confirmed: Confirmed | null;
}

export interface PlanInput {
  servedName: string;
  /** The revision that pods should serve; null where none is known. */
  digest: string | null;
  pods: Pod[];
  attemptOf: (pod: Pod) => Attempt | null;
  confirmedBy: (pod: Pod) => Confirmed | null;
  /** Some pod refused this revision before any fleet served it: it is activated nowhere. */
  refusedSomewhere: boolean;
  /** None is activated before all hold it. */
  isBarrier: boolean;
  /** What a pod serves stays, whichever revision it is. */
  onlyWhereNothing: boolean;
  nowMs: number;
}

/**
 * What to do in each pod for one adapter. Pure: the same input is the same plan.
 *
 *   desired | observed in the pod             | last attempt in this boot | action
 *   --------|---------------------------------|---------------------------|------------------------------
 *   none    | anything                        | any                       | none
 *   D       | unreachable, or no report yet   | any                       | wait      its watch will tell
 *   D       | current = D                     | any                       | none      done, and confirmed
 *   D       | another is current, suspended   | any                       | none      nothing changes
 *   D       | less than it has confirmed      | any                       | wait      its watch will tell, or 30 s end that
 *   D       | anything else                   | refused for what it is    | refused   until D or the pod changes
 *   D       | D not there                     | failed, not yet due       | backoff
 *   D       | D not there                     | did not fit; less is taken| stage     it may fit now
 *   D       | D not there                     | none, or due              | stage
 *   D       | D held, not current             | said that D is not there  | as where D is not there
 *   D       | D held, not current             | failed, not yet due       | backoff
 *   D       | D held, not current             | none, or due; D refused   | hold      by another pod
 *   D       | D held, not current             | none, or due; barrier     | hold      D current nowhere, not there somewhere
 *   D       | D held, not current             | none, or due              | activate
 */
export function plan(input: PlanInput): Row[] {
  const rows = input.pods.map((pod) => {
    const attempt = relevantAttempt(input.attemptOf(pod), pod, input.digest);
    const reported = observe(pod, input.servedName, input.digest);
    const observed = reported === 'held' && isDenial(attempt) ? 'absent' : reported;
    const confirmed = unreported(input.confirmedBy(pod), pod, { observed, input });
    return {
      pod,
      observed,
      attempt,
      confirmed,
      action: decide(pod, { observed, attempt, confirmed, input }),
    };
  });
  return input.isBarrier && isBefore(rows) ? rows.map(heldBack) : rows;
}

/** What a pod answers when it is asked to serve a revision counts for more than its report of what it holds. */
function isDenial(attempt: Attempt | null): boolean {
  return attempt?.code === 'revision_not_found' || attempt?.code === 'adapter_not_found';
}

/** A swap that has begun anywhere goes on: waiting longer would only keep the pods apart. */
function isBefore(rows: readonly Row[]): boolean {
  const isBegun = rows.some(({ observed }) => observed === 'current');
  return !isBegun && rows.some(({ observed }) => observed !== 'held');
}

function heldBack(row: Row): Row {
  return row.action === 'activate' ? { ...row, action: 'hold' } : row;
}

function decide(
  pod: Pod,
  { observed, attempt, confirmed, input }: Omit<Row, 'pod' | 'action'> & { input: PlanInput },
): Action {
  if (input.digest === null) return 'none';
  if (observed === 'unreachable') return 'wait';
  if (observed === 'current') return 'none';
  const isServed = adapterIn(pod.state, input.servedName)?.current ?? null;
  if (input.onlyWhereNothing && isServed !== null) return 'none';
  if (confirmed !== null) return 'wait';
  if (attempt?.terminal) return 'refused';
  if (attempt !== null && attempt.retryAtMs > input.nowMs && !mayFit(pod, attempt)) return 'backoff';
  if (observed === 'absent') return 'stage';
  return input.refusedSomewhere ? 'hold' : 'activate';
}

/** A report may be later than the answer to a call: what it lacks then is not lacking. */
function unreported(
  confirmed: Confirmed | null,
  { state }: Pod,
  { observed, input }: { observed: Observed; input: PlanInput },
): Confirmed | null {
  if (confirmed === null || confirmed.untilMs <= input.nowMs) return null;
  if (confirmed.digest !== input.digest || confirmed.bootId !== state?.bootId) return null;
  const isBehind = observed === 'absent' || (observed === 'held' && confirmed.as === 'current');
  return isBehind ? confirmed : null;
}

function mayFit({ state }: Pod, { code, used }: Attempt): boolean {
  return code === 'no_capacity' && state !== null && used !== null && hasFreed(used, state.used);
}

export function observe(pod: Pod, servedName: string, digest: string | null): Observed {
  if (!pod.reachable || pod.state === null) return 'unreachable';
  const adapter = adapterIn(pod.state, servedName);
  if (digest === null || adapter === undefined) return 'absent';
  if (adapter.current === digest) return 'current';
  const isHeld = adapter.revisions.some((item) => item.digest === digest && item.state !== 'retired');
  return isHeld ? 'held' : 'absent';
}

export function adapterIn(state: PodState | null, servedName: string) {
  return state === null ? undefined : heldIn(state, servedName);
}

export function revisionIn(
  state: PodState | null,
  servedName: string,
  digest: string,
): RevisionState | undefined {
  return adapterIn(state, servedName)?.revisions.find((revision) => revision.digest === digest);
}

/** An attempt says nothing about another revision, nor about another process in the same pod. */
export function relevantAttempt(attempt: Attempt | null, pod: Pod, digest: string | null): Attempt | null {
  if (attempt === null || attempt.digest !== digest) return null;
  return pod.state !== null && pod.state.bootId !== attempt.bootId ? null : attempt;
}

export type RemovalAction = 'none' | 'remove' | 'drain' | 'wait';

/**
 * What to do in each pod of an adapter that is being deleted.
 *
 *   observed in the pod                                | action
 *   ---------------------------------------------------|------------------------------------------------
 *   unreachable, or no report yet                      | wait    until the deadline
 *   the name is not there                              | none    absence is confirmed
 *   there, and a current or staged revision            | remove
 *   there, only retired revisions with running requests| drain   the pod frees them by itself
 */
export function planRemoval(pods: Pod[], servedName: string): { pod: Pod; action: RemovalAction }[] {
  return pods.map((pod) => ({ pod, action: removalIn(pod, servedName) }));
}

function removalIn(pod: Pod, servedName: string): RemovalAction {
  if (!pod.reachable || pod.state === null) return 'wait';
  const adapter = adapterIn(pod.state, servedName);
  if (adapter === undefined) return 'none';
  const leaving = adapter.current === null && adapter.revisions.every(isLeaving);
  return leaving ? 'drain' : 'remove';
}

function isLeaving(revision: RevisionState): boolean {
  return revision.state === 'retired' && revision.leases > 0;
}
