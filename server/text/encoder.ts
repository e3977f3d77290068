import { Worker } from 'node:worker_threads';
import type { Tokenizer } from './tokenizer.ts';

/** Characters that are encoded on the event loop: a few milliseconds. */
const INLINE_CHARACTERS_MAX = 16_384;
const JOBS_MAX = 64;
const JOB_MS_MAX = 20_000;

export interface EncodeJob {
  text: string;
  addSpecial: boolean;
  /** Untrusted parts of the text went through `Tokenizer.defuse`. */
  guarded: boolean;
}

export class EncoderError extends Error {
  readonly code: 'too_many_jobs' | 'too_slow' | 'closed';

  constructor(code: EncoderError['code'], message: string) {
    super(message);
    this.code = code;
  }
}

interface Waiting {
  job: EncodeJob;
  resolve(ids: number[]): void;
  reject(error: Error): void;
}

/** Encodes short texts at once and long ones in a thread, one after the other, so that no text stops all streams. */
export class Encoder {
  private readonly tokenizer: Tokenizer;
  private readonly modelDir: string;
  private readonly jobMsMax: number;
  private readonly queue: Waiting[] = [];
  private worker: Worker | null = null;
  private timer: NodeJS.Timeout | undefined;
  private closed = false;

  constructor(tokenizer: Tokenizer, modelDir: string, jobMsMax: number = JOB_MS_MAX) {
    this.tokenizer = tokenizer;
    this.modelDir = modelDir;
    this.jobMsMax = jobMsMax;
  }

  async encode(job: EncodeJob): Promise<number[]> {
    if (job.text.length <= INLINE_CHARACTERS_MAX) return runEncodeJob(this.tokenizer, job);
    if (this.closed) throw new EncoderError('closed', 'The server is shutting down.');
    if (this.queue.length >= JOBS_MAX)
      throw new EncoderError('too_many_jobs', 'Too many long prompts wait already.');
    return await new Promise((resolve, reject) => {
      this.queue.push({ job, resolve, reject });
      if (this.queue.length === 1) this.start();
    });
  }

  async close(): Promise<void> {
    this.closed = true;
    for (const { reject } of this.queue.splice(0))
      reject(new EncoderError('closed', 'The server is shutting down.'));
    await this.stopWorker();
  }

  /** The first of the queue is the one that the worker works on. */
  private start(): void {
    const next = this.queue[0];
    if (next === undefined) return;
    if (this.worker === null) {
      this.worker = this.startWorker();
      return;
    }
    this.worker.postMessage(next.job);
    this.timer = setTimeout(() => {
      const message = `The prompt could not be tokenized within ${this.jobMsMax} ms.`;
      this.abandon(new EncoderError('too_slow', message));
    }, this.jobMsMax);
  }

  /** Its first message is null: it is ready. */
  private startWorker(): Worker {
    const worker = new Worker(new URL('./encoder-worker.ts', import.meta.url), { workerData: this.modelDir });
    worker.unref();
    worker.on('message', (ids: number[] | null) => {
      clearTimeout(this.timer);
      if (ids !== null) this.queue.shift()?.resolve(ids);
      this.start();
    });
    worker.on('error', (error) => this.abandon(error instanceof Error ? error : new Error(String(error))));
    return worker;
  }

  /** Gives the running job up, with its worker; the next one gets a new worker. */
  private abandon(error: Error): void {
    clearTimeout(this.timer);
    this.queue.shift()?.reject(error);
    void this.stopWorker();
    this.start();
  }

  private async stopWorker(): Promise<void> {
    clearTimeout(this.timer);
    const worker = this.worker;
    this.worker = null;
    worker?.removeAllListeners();
    await worker?.terminate();
  }
}

export function runEncodeJob(tokenizer: Tokenizer, { text, addSpecial, guarded }: EncodeJob): number[] {
  return guarded ? tokenizer.encodeGuarded(text, { addSpecial }) : tokenizer.encode(text, { addSpecial });
}
