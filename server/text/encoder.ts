import { setImmediate as nextTurn } from 'node:timers/promises';
import { type EncodeJob, runEncodeJob } from './encoder-job.ts';
import { EncoderThread } from './encoder-thread.ts';
import type { Tokenizer } from './tokenizer.ts';

/** Characters that the event loop encodes itself, of one request and in one of its turns: milliseconds, 70 at worst. */
const INLINE_CHARACTERS_MAX = 16_384;

/** Encodes the texts of one request, which awaits each before it asks for the next: so requests take turns. */
export interface RequestEncoder {
  encode(job: EncodeJob): Promise<number[]>;
}

/** Encodes short texts at once and long ones in a thread, so that no text, and no number of them, stops all streams. */
export class Encoder {
  readonly #tokenizer: Tokenizer;
  readonly #thread: EncoderThread;
  #turnCharacters = 0;

  constructor(tokenizer: Tokenizer, modelDir: string, jobMsMax?: number) {
    this.#tokenizer = tokenizer;
    this.#thread = new EncoderThread(modelDir, jobMsMax);
  }

  /** Clients take turns in the thread. Once the signal aborts, `encode` rejects with its reason. */
  forRequest(client: string, signal: AbortSignal): RequestEncoder {
    let characters = 0;
    return {
      encode: async (job) => {
        signal.throwIfAborted();
        characters += job.text.length;
        if (characters > INLINE_CHARACTERS_MAX) return await this.#thread.encode(job, client, signal);
        await this.#takeTurn(job.text.length);
        signal.throwIfAborted();
        return runEncodeJob(this.#tokenizer, job);
      },
    };
  }

  async close(): Promise<void> {
    await this.#thread.close();
  }

  async #takeTurn(characters: number): Promise<void> {
    while (this.#turnCharacters + characters > INLINE_CHARACTERS_MAX) await nextTurn();
    if (this.#turnCharacters === 0) {
      setImmediate(() => {
        this.#turnCharacters = 0;
      });
    }
    this.#turnCharacters += characters;
  }
}
