import { setTimeout as delay } from 'node:timers/promises';
import type { Dispatcher } from 'undici';
import type { z } from 'zod';
import { LorikeetError } from '../contract/errors.ts';
import { exchange, jsonOrNull, readText } from '../transfer/call.ts';
import { stallGuarded } from '../transfer/stall-guard.ts';
import { PodUnreachable } from '../transfer/unreachable.ts';
import type { AdapterOnDisk } from './adapter.ts';

/** How long the other side may leave a chunk untaken, and how long it may be silent. */
const STALL_MS = 10_000;
const SILENCE_MS = 120_000;
const TRIES_MAX = 5;
const PAUSE_MS = 200;

export interface Push {
  adapter: string;
  served: string;
  step: number;
  tensors: AdapterOnDisk;
  /** Revisions that pods should have at last, the new one among them. */
  keep: number;
  signal: AbortSignal;
}

/** Through which revisions reach the pods. */
export interface PushTarget {
  /** The name that pods have for what the trainer calls so. */
  servedName(adapter: string, signal: AbortSignal): Promise<string>;
  /** Returns once the revision was made current; the time from the first pod to the last, where that is known. */
  push(push: Push): Promise<{ skewMs: number | null }>;
  /** Whether it took the adapter out of the pods. */
  remove(served: string, signal: AbortSignal): Promise<boolean>;
}

export interface PushCalls {
  dispatcher: Dispatcher;
  token: () => Promise<string>;
}

interface Call<T> {
  method: 'GET' | 'PUT' | 'POST' | 'DELETE';
  url: string;
  headers?: Record<string, string>;
  body?: string | AdapterOnDisk;
  reply: z.ZodType<T>;
  signal: AbortSignal;
}

/** One call; tried again where there was no answer, or one that says that it passes. Each is safe to repeat. */
export async function call<T>(calls: PushCalls, asked: Call<T>): Promise<T> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await callOnce(calls, asked);
    } catch (error) {
      const pauseMs = tries < TRIES_MAX && !asked.signal.aborted ? pauseAfter(error, tries) : null;
      if (pauseMs === null) throw error;
      await delay(pauseMs, undefined, { signal: asked.signal }).catch(() => {
        throw error;
      });
    }
  }
}

/** Of what was sent and of what the other side says that it took in. */
export function requireRevision(sent: string, taken: string): void {
  if (sent !== taken) throw new PodUnreachable(`sent ${sent} but the answer is of ${taken}`);
}

/** Null: the same again would fail again. */
function pauseAfter(error: unknown, tries: number): number | null {
  const seconds = error instanceof LorikeetError ? error.retryAfterSeconds : 0;
  if (seconds === null || !(error instanceof LorikeetError || error instanceof PodUnreachable)) return null;
  return Math.max(seconds * 1000, PAUSE_MS * 2 ** (tries - 1));
}

async function callOnce<T>({ dispatcher, token }: PushCalls, asked: Call<T>): Promise<T> {
  const { method, url, headers, body, reply, signal } = asked;
  const stalled = new AbortController();
  const life = AbortSignal.any([signal, stalled.signal]);
  const onStall = () => stalled.abort(new PodUnreachable(`${url} took no byte for ${STALL_MS} ms`));
  const stream =
    body === undefined || typeof body === 'string' ? null : stallGuarded(body.tensors(), STALL_MS, onStall);
  const authorization = `Bearer ${await token()}`;
  try {
    const response = await exchange({
      method,
      url,
      headers: { ...headers, authorization },
      body: stream ?? (body as string | undefined),
      dispatcher,
      signal: life,
      silenceMs: SILENCE_MS,
    });
    const parsed = reply.safeParse(jsonOrNull(await readText(response.body, life)));
    if (parsed.success) return parsed.data;
    throw new PodUnreachable(`${url} answered with what is not of its API`);
  } finally {
    stream?.destroy();
  }
}
