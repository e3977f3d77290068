import type { Io } from './io.ts';
import { sizeText } from './words.ts';

const EVERY_MS = 200;
const CLEAR_LINE = '\r\u001b[K';

/** One line on stderr that is written over as an upload goes on; nothing where nobody looks. */
export class Progress {
  readonly #io: Io;
  readonly #what: string;
  readonly #total: number;
  readonly #nowMs: () => number;
  readonly #startedMs: number;
  #shownMs = Number.NEGATIVE_INFINITY;
  #sent = 0;

  constructor(io: Io, { what, total, nowMs }: { what: string; total: number; nowMs: () => number }) {
    this.#io = io;
    this.#what = what;
    this.#total = total;
    this.#nowMs = nowMs;
    this.#startedMs = nowMs();
  }

  add(bytes: number): void {
    this.#sent += bytes;
    const nowMs = this.#nowMs();
    const isDone = this.#sent >= this.#total;
    if (!this.#io.isErrTty || (!isDone && nowMs - this.#shownMs < EVERY_MS)) return;
    this.#shownMs = nowMs;
    this.#io.err(`${CLEAR_LINE}${isDone ? this.#waiting() : this.#going(nowMs)}`);
  }

  /** Before anything else is written. */
  end(): void {
    if (this.#io.isErrTty && this.#sent > 0) this.#io.err(CLEAR_LINE);
  }

  #going(nowMs: number): string {
    const seconds = Math.max(0.001, (nowMs - this.#startedMs) / 1000);
    const perSecond = this.#sent / seconds;
    const left = Math.ceil((this.#total - this.#sent) / perSecond);
    const percent = Math.floor((100 * this.#sent) / this.#total);
    return `${this.#what}: ${sizeText(this.#sent)} of ${sizeText(this.#total)} (${percent} %), ${sizeText(Math.round(perSecond))}/s, ${left} s left`;
  }

  #waiting(): string {
    return `${this.#what}: ${sizeText(this.#total)} sent, waiting for the pods`;
  }
}
