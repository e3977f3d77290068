import { expected } from '../contract/errors.ts';

/** How slowly a body may come: within `waitMs`, or at `bytesPerMsMin` where that takes longer. */
export interface Pace {
  waitMs: number;
  bytesPerMsMin: number;
}

/** 30 s, or 1 MiB/s. */
export const BODY_PACE: Pace = { waitMs: 30_000, bytesPerMsMin: (1 << 20) / 1000 };

export function bodyDeadlineMs(bytes: number, { waitMs, bytesPerMsMin }: Pace = BODY_PACE): number {
  return Math.max(waitMs, bytes / bytesPerMsMin);
}

/** `bytes`: what was announced, or what has arrived so far. */
export function requireBodySize(bytes: number, bytesMax: number): void {
  if (bytes <= bytesMax) return;
  throw expected('body_too_large', 'body', { words: `at most ${bytesMax} bytes`, value: bytesMax }, bytes);
}
