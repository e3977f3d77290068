import { randomUUID } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { FastifyReply } from 'fastify';
import type { Account } from './byte-budget.ts';
import { patiently } from './unread.ts';

/** Short pieces are joined up to this. */
const PIECE_CHARACTERS = 64 << 10;
/** Items that are written in one turn of the event loop. */
const TURN_ITEMS = 256;

/** A list that is kept as its JSON: a tenth of what the objects take, and nothing is left to do at the end. */
export class JsonList {
  readonly #account: Account;
  readonly #pieces: string[] = [];
  #last = '';

  constructor(account: Account) {
    this.#account = account;
  }

  push(items: readonly unknown[]): void {
    if (items.length === 0) return;
    const text = JSON.stringify(items).slice(1, -1);
    this.#account.addAnswer(text.length);
    this.#last += this.#last === '' && this.#pieces.length === 0 ? text : `,${text}`;
    if (this.#last.length < PIECE_CHARACTERS) return;
    this.#pieces.push(this.#last);
    this.#last = '';
  }

  /** As `push`, for more than a turn of the event loop should write. */
  async pushAll(items: Iterable<unknown>): Promise<void> {
    let some: unknown[] = [];
    for (const item of items) {
      some.push(item);
      if (some.length < TURN_ITEMS) continue;
      this.push(some);
      some = [];
      await nextTurn();
    }
    this.push(some);
  }

  *pieces(): Generator<string> {
    yield '[';
    yield* this.#pieces;
    yield `${this.#last}]`;
  }
}

/** The JSON of an object in pieces; long lists in it are JsonLists. */
export function* jsonPieces(value: object): Generator<string> {
  const mark = randomUUID();
  const lists: JsonList[] = [];
  const shell = JSON.stringify(value, (_, item) => {
    if (!(item instanceof JsonList)) return item;
    lists.push(item);
    return mark;
  });
  let piece = '';
  for (const [index, part] of shell.split(`"${mark}"`).entries()) {
    for (const text of [part, ...(lists[index]?.pieces() ?? [])]) {
      piece += text;
      if (piece.length < PIECE_CHARACTERS) continue;
      yield piece;
      piece = '';
    }
  }
  yield piece;
}

/** A short answer at once, a long one in pieces, one a turn. */
export function sendJson(reply: FastifyReply, value: object): FastifyReply {
  const pieces = jsonPieces(value);
  const first = pieces.next().value as string;
  void reply.type('application/json; charset=utf-8');
  if (first.length < PIECE_CHARACTERS) return reply.send(first);
  return reply.send(patiently(oneATurn(first, pieces), () => reply.raw.destroy()));
}

async function* oneATurn(first: string, rest: Iterable<string>): AsyncGenerator<string> {
  yield first;
  for (const piece of rest) {
    await nextTurn();
    yield piece;
  }
}
