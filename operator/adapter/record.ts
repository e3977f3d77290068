import type { Lock } from '../../server/transfer/serial.ts';
import type { LoraAdapterStatus, RevisionRecord } from '../api/lora-adapter.ts';
import type { Pod } from '../pods/pod.ts';
import type { Spool } from '../spool/spool.ts';
import type { Failure } from './failures.ts';
import type { Attempt, Confirmed } from './plan.ts';
import { Refusals } from './refusals.ts';

/** A trainer that pushes every second must not fill the list of events. */
const SWAP_TOLD_MS = 30_000;

export type Pins = Pick<Spool, 'pin' | 'unpin'>;
type LastSwap = LoraAdapterStatus['lastSwap'];
type Told = { status: string; reason: string };

export interface SourceFailure {
  intent: string;
  /** Null: the source did not even say what is there. */
  sourceVersion: string | null;
  /** Of the pool and its pods at that time. */
  limits: string;
  error: unknown;
  failures: number;
  retryAtMs: number;
}

/** How far one intent has come: resolved or failed, then settled. */
export interface SourceProgress {
  /** That `desired` came from; null: to be resolved. */
  settledFor: string | null;
  /** What the source said, while nothing has been fetched for it yet. */
  resolved: { intent: string; sourceVersion: string } | null;
  failure: SourceFailure | null;
  /** When it was settled, or found unchanged since; null: not since this process began. */
  looked: Looked | null;
}

export interface Looked {
  atMs: number;
  /** In [0, 1): of the time until the next look. */
  random: number;
}

/**
 * What one process knows of one adapter beyond its object and its pods; all of it can be found out again. Each verb is
 * something that happened. Those that take a lock are for whoever holds the adapter's mutex.
 */
export class AdapterRecord {
  readonly key: string;
  readonly uid: string;
  readonly #nextSequence: () => number;
  #sequence: number;
  #desired: RevisionRecord | null = null;
  #current: RevisionRecord | null = null;
  #previous: readonly RevisionRecord[] = [];
  #recovered = false;
  #source: SourceProgress = { settledFor: null, resolved: null, failure: null, looked: null };
  #config: unknown | null = null;
  /** By pod uid. */
  readonly #attempts = new Map<string, Attempt>();
  /** By pod uid. */
  readonly #confirmed = new Map<string, Confirmed>();
  readonly #refused = new Refusals();
  #lost: string | null = null;
  #lastSwap: LastSwap;
  #decided = false;
  #told: Told | null = null;
  #swapToldAtMs = Number.NEGATIVE_INFINITY;
  #released = false;

  constructor(key: string, uid: string, nextSequence: () => number) {
    this.key = key;
    this.uid = uid;
    this.#nextSequence = nextSequence;
    this.#sequence = nextSequence();
  }

  /** Of the fence: a new one with each change of what pods should serve. */
  get sequence(): number {
    return this.#sequence;
  }

  /** What pods should serve, unless pods refuse it. */
  get desired(): RevisionRecord | null {
    return this.#desired;
  }

  /** The newest that every desired pod has confirmed. */
  get current(): RevisionRecord | null {
    return this.#current;
  }

  /** Desired before, newest first. */
  get previous(): readonly RevisionRecord[] {
    return this.#previous;
  }

  /**
   * The revision to bring to pods: the desired one, but where pods refused that for what it is, the last good one. So a
   * pod that restarts while a bad revision is desired gets what the others still serve.
   */
  get target(): RevisionRecord | null {
    const isRefused = this.#desired !== null && this.refusalOf(this.#desired.digest) !== null;
    return isRefused && this.#current !== null ? this.#current : this.#desired;
  }

  /** True once `desired` says all that status and pods can tell. */
  get recovered(): boolean {
    return this.#recovered;
  }

  get source(): Readonly<SourceProgress> {
    return this.#source;
  }

  /** Of the last push, for a push without one. */
  get config(): unknown | null {
    return this.#config;
  }

  /** A digest whose bytes nobody has any more. */
  get lost(): string | null {
    return this.#lost;
  }

  get lastSwap(): LastSwap {
    return this.#lastSwap;
  }

  /** False until a reconcile has decided what pods should have, nothing included: new pods wait for that. */
  get decided(): boolean {
    return this.#decided;
  }

  /** Some pod had no room for it. */
  get waitsForRoom(): boolean {
    return [...this.#attempts.values()].some(({ code }) => code === 'no_capacity');
  }

  attemptOf(podUid: string): Attempt | null {
    return this.#attempts.get(podUid) ?? null;
  }

  confirmedBy(podUid: string): Confirmed | null {
    return this.#confirmed.get(podUid) ?? null;
  }

  /** With the words of a pod that refused the revision for what it is. */
  refusalOf(digest: string): Failure | null {
    return this.#refused.of(digest);
  }

  /** Takes over what status says, and what pods have that is newer than that. */
  recover(status: LoraAdapterStatus | undefined, newer: RevisionRecord | null, spool: Pins): void {
    const told = status?.desiredRevision ?? null;
    const previous = status?.previousRevisions ?? [];
    this.#desired = newer ?? told;
    this.#current = status?.currentRevision ?? null;
    const earlier = told === null ? previous : [told, ...previous];
    this.#previous = earlier.filter(({ digest }) => digest !== this.#desired?.digest);
    this.#lastSwap = status?.lastSwap;
    this.#recovered = true;
    if (this.#desired !== null) this.#pin(this.#desired.digest, spool);
  }

  /** Makes a revision the desired one; the spool keeps it for as long as it is. */
  adopt(lock: Lock, revision: RevisionRecord, { keep, spool }: { keep: number; spool: Pins }): void {
    this.#require(lock);
    const before = this.#desired;
    this.#desired = revision;
    if (before?.digest === revision.digest) return;
    this.#sequence = this.#nextSequence();
    this.#refused.forget(revision.digest);
    this.#pin(revision.digest, spool);
    if (before === null) return;
    spool.unpin(before.digest, this.uid);
    const earlier = [before, ...this.#previous].filter(({ digest }) => digest !== revision.digest);
    this.#previous = earlier.slice(0, keep);
  }

  /** Every desired pod serves the desired revision. */
  confirm(lock: Lock): void {
    this.#require(lock);
    this.#current = this.#desired;
  }

  /** Pods are to drop the adapter, whoever told them to serve it before. */
  withdraw(lock: Lock): void {
    this.#require(lock);
    this.#sequence = this.#nextSequence();
  }

  swap(lock: Lock, lastSwap: LastSwap): void {
    this.#require(lock);
    this.#lastSwap = lastSwap;
  }

  /** A new pod can know what it should have of this adapter, or that there is nothing to be had. */
  decide(isPlaced: boolean): void {
    const isKnown = !isPlaced || this.target !== null || this.#source.resolved === null;
    this.#decided = this.#recovered && isKnown;
  }

  resolve(intent: string, sourceVersion: string): void {
    this.#source = { ...this.#source, resolved: { intent, sourceVersion } };
  }

  failSource(failure: SourceFailure): void {
    this.#source = { ...this.#source, resolved: null, failure };
  }

  settle(intent: string): void {
    this.#source = { settledFor: intent, resolved: null, failure: null, looked: null };
  }

  /** What is desired is what the source has, seen from this moment on. */
  look(looked: Looked): void {
    this.#source = { ...this.#source, looked };
  }

  /** Content that one pod refuses for what it is, is refused for all. */
  failPod(podUid: string, attempt: Attempt, failure: Failure): void {
    this.#confirmed.delete(podUid);
    this.#attempts.set(podUid, attempt);
    if (!failure.terminal) return;
    if (!this.#refused.note(attempt.digest, podUid, { bootId: attempt.bootId, failure })) return;
    // Pods that had activated it already go back to the last good revision, which needs a later fence.
    this.#sequence = this.#nextSequence();
  }

  clearPod(podUid: string): void {
    this.#attempts.delete(podUid);
    this.#confirmed.delete(podUid);
  }

  /** A pod has answered that it did what it was asked, and has not reported it. */
  awaitReport(podUid: string, confirmed: Confirmed): void {
    this.#confirmed.set(podUid, confirmed);
  }

  /** It has reported it, or will not. */
  endAwait(podUid: string): void {
    this.#confirmed.delete(podUid);
  }

  /** Pods come and go, and start anew with other limits; what they answered must not stay for ever. */
  keepPods(pods: readonly Pod[]): void {
    const uids = new Set(pods.map(({ uid }) => uid));
    for (const uid of [...this.#attempts.keys(), ...this.#confirmed.keys()]) {
      if (!uids.has(uid)) this.clearPod(uid);
    }
    const cleared = this.#refused.keep(pods);
    // Pods that went back to the last good revision are given this one after all, which needs a later fence.
    if (cleared.some((digest) => digest === this.#desired?.digest)) this.#sequence = this.#nextSequence();
  }

  lose(digest: string): void {
    this.#lost = digest;
  }

  regain(): void {
    this.#lost = null;
  }

  keepConfig(config: unknown): void {
    this.#config = config;
  }

  /** Returns what people had been told of Ready before. */
  tell(told: Told): Told | null {
    const before = this.#told;
    this.#told = told;
    return before;
  }

  /** True where people are to be told of a swap. */
  tellSwap(nowMs: number): boolean {
    if (nowMs - this.#swapToldAtMs < SWAP_TOLD_MS) return false;
    this.#swapToldAtMs = nowMs;
    return true;
  }

  /** The object is gone. What is still under way for it may end, but keeps nothing in the spool any more. */
  release(spool: Pins): void {
    this.#released = true;
    if (this.#desired !== null) spool.unpin(this.#desired.digest, this.uid);
  }

  #pin(digest: string, spool: Pins): void {
    if (!this.#released) spool.pin(digest, this.uid);
  }

  #require({ key, isHeld }: Lock): void {
    if (key !== this.key || !isHeld) throw new TypeError(`The mutex of ${this.key} is not held`);
  }
}
