import type { FailureCode, RequestEvent, TokenLogprobs } from '../engine/port.ts';
import { StopStrings } from '../text/stop-strings.ts';
import type { Tokenizer } from '../text/tokenizer.ts';
import { Disconnected, OpenAiError } from './errors.ts';

/** How the tokens of one choice become text. */
export interface Reading {
  /** Those that the client named: `stop_reason` says which one it was. */
  namedStops: Set<number>;
  stops: string[];
  includeStop: boolean;
  skipSpecial: boolean;
}

export interface GeneratedToken {
  id: number;
  logprobs: TokenLogprobs | null;
}

export interface Finish {
  /** `abort`: a pause ended it with what it had. */
  reason: 'stop' | 'length' | 'abort';
  /** The stop string, or the id of a stop token that the client named. */
  stopReason: string | number | null;
}

/** A bit of a choice: text with the tokens that it took; the last one says why the choice ended. */
export interface Piece {
  text: string;
  tokens: GeneratedToken[];
  finish: Finish | null;
}

export interface Hearing {
  /** So many of the prompt's tokens had been computed before. */
  onStarted(cachedTokens: number): void;
  /** Tokens from this one on are of another revision. Throws where that is none that the request takes. */
  onMoved(revision: { digest: string; step: number | null }, from: number): void;
  /** The prompt's log-probabilities come first, where they were asked for. */
  onPrompt(logprobs: TokenLogprobs[]): void;
  /** Whether a choice that was cancelled goes out with what it has; else nobody waits for it. */
  isCut(): boolean;
  /** What to throw where the engine failed the choice. */
  refusal(code: FailureCode): OpenAiError;
}

export async function* readChoice(
  events: AsyncIterable<RequestEvent>,
  reading: Reading,
  tokenizer: Tokenizer,
  hearing: Hearing,
): AsyncGenerator<Piece> {
  const text = new ChoiceText(reading, tokenizer);
  let tokens: GeneratedToken[] = [];
  let generated = 0;
  for await (const event of events) {
    switch (event.type) {
      case 'started':
        hearing.onStarted(event.cachedTokens);
        break;
      case 'moved':
        hearing.onMoved({ digest: event.revision, step: event.step }, generated);
        break;
      case 'prompt':
        hearing.onPrompt(event.logprobs);
        break;
      case 'token': {
        generated += 1;
        tokens.push({ id: event.token, logprobs: event.logprobs });
        const piece = text.push(event.token);
        if (piece.text === '' && piece.finish === null) break;
        yield { tokens, ...piece };
        if (piece.finish !== null) return;
        tokens = [];
        break;
      }
      case 'finished':
        if (event.reason === 'cancelled') {
          if (!hearing.isCut()) throw new Disconnected('cancelled');
          yield { tokens, ...text.end({ reason: 'abort', stopReason: null }) };
          return;
        }
        if (event.stopToken !== null) tokens.push({ id: event.stopToken, logprobs: event.logprobs });
        yield { tokens, ...text.end({ reason: event.reason, stopReason: named(event.stopToken, reading) }) };
        return;
      case 'failed':
        throw hearing.refusal(event.code);
    }
  }
  throw new OpenAiError('internal', 'The engine ended without a word.');
}

function named(token: number | null, reading: Reading): number | null {
  return token !== null && reading.namedStops.has(token) ? token : null;
}

class ChoiceText {
  private readonly detokenizer;
  private readonly stops: StopStrings;

  constructor(reading: Reading, tokenizer: Tokenizer) {
    this.detokenizer = tokenizer.detokenizer({ skipSpecial: reading.skipSpecial });
    this.stops = new StopStrings(reading.stops, { include: reading.includeStop });
  }

  push(token: number): { text: string; finish: Finish | null } {
    const { text, stop } = this.stops.push(this.detokenizer.push(token));
    return { text, finish: stop === null ? null : { reason: 'stop', stopReason: stop } };
  }

  /** Bytes and half stop strings that were held back come out. */
  end(finish: Finish): { text: string; finish: Finish } {
    const { text, stop } = this.stops.push(this.detokenizer.end());
    if (stop !== null) return { text, finish: { reason: 'stop', stopReason: stop } };
    return { text: text + this.stops.end(), finish };
  }
}
