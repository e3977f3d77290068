import { getHeapStatistics } from 'node:v8';
import { badRequest, OpenAiError } from './errors.ts';

/** Of the heap that the process may use. What is counted is text and bytes; objects made of them come on top. */
const HEAP_SHARE = 1 / 4;
/** Of the budget, for one answer. */
const ANSWER_SHARE = 1 / 4;
/** Bodies up to here are free: the number of connections bounds them, and a few large ones must not shut them out. */
const FREE_BODY_BYTES = 64 << 10;

export function budgetOfHeap(): number {
  return Math.floor(getHeapStatistics().heap_size_limit * HEAP_SHARE);
}

/** Bytes of all requests under way: bodies, and answers that are built or not read yet. */
export class ByteBudget {
  readonly bytesMax: number;
  used = 0;

  constructor(bytesMax: number) {
    this.bytesMax = bytesMax;
  }

  open(): Account {
    return new Account(this);
  }
}

/** One request's part of the budget, given back whole. */
export class Account {
  readonly #budget: ByteBudget;
  #bodyBytes = 0;
  #answerBytes = 0;
  #closed = false;

  constructor(budget: ByteBudget) {
    this.#budget = budget;
  }

  /** As announced, then as it came; the later call replaces the earlier. */
  setBody(bytes: number): void {
    if (this.#closed) return;
    const counted = bytes <= FREE_BODY_BYTES ? 0 : bytes;
    this.#take(counted - this.#bodyBytes);
    this.#bodyBytes = counted;
  }

  /** More of the answer. */
  addAnswer(bytes: number): void {
    if (this.#closed) return;
    const answerBytesMax = Math.floor(this.#budget.bytesMax * ANSWER_SHARE);
    if (this.#answerBytes + bytes > answerBytesMax) {
      const remedy = 'stream it, or ask for fewer choices, tokens or log-probabilities';
      throw badRequest(`The answer would have more than ${answerBytesMax} bytes: ${remedy}`);
    }
    this.#take(bytes);
    this.#answerBytes += bytes;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#budget.used -= this.#bodyBytes + this.#answerBytes;
  }

  #take(bytes: number): void {
    if (bytes > 0 && this.#budget.used + bytes > this.#budget.bytesMax) {
      throw new OpenAiError(
        'overloaded',
        'The requests under way hold as many bytes as may be held at once.',
      );
    }
    this.#budget.used += bytes;
  }
}
