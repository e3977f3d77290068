import { Worker } from 'node:worker_threads';
import { type EncodeJob, EncoderError } from './encoder-job.ts';
import { FairQueue } from './fair-queue.ts';

const WAITING_MAX = 64;
const JOB_MS_MAX = 20_000;
/** How long a running job that nobody waits for any more may take to its end; to end its thread costs a new one. */
const LEFT_MS_MAX = 1_000;

interface Waiting {
  client: string;
  job: EncodeJob;
  resolve(ids: number[]): void;
  reject(error: unknown): void;
}

/** One thread that encodes one text after the other; clients take turns. */
export class EncoderThread {
  readonly #modelDir: string;
  readonly #jobMsMax: number;
  readonly #queue = new FairQueue<Waiting>(WAITING_MAX);
  #running: Waiting | null = null;
  #worker: Worker | null = null;
  /** The worker has loaded its tokenizer. */
  #ready = false;
  #timer: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(modelDir: string, jobMsMax: number = JOB_MS_MAX) {
    this.#modelDir = modelDir;
    this.#jobMsMax = jobMsMax;
  }

  /** The job leaves the queue when the signal aborts. */
  async encode(job: EncodeJob, client: string, signal: AbortSignal): Promise<number[]> {
    signal.throwIfAborted();
    if (this.#closed) throw new EncoderError('closed', 'The server is shutting down.');
    const { promise, resolve, reject } = Promise.withResolvers<number[]>();
    const waiting = { client, job, resolve, reject };
    const leave = () => this.#leave(waiting, signal.reason);
    signal.addEventListener('abort', leave, { once: true });
    const refused = this.#queue.push(client, waiting);
    refused?.reject(new EncoderError('too_many_jobs', 'Too many long prompts wait already.'));
    this.#next();
    return await promise.finally(() => signal.removeEventListener('abort', leave));
  }

  async close(): Promise<void> {
    this.#closed = true;
    const closed = new EncoderError('closed', 'The server is shutting down.');
    this.#running?.reject(closed);
    for (const { reject } of this.#queue.clear()) reject(closed);
    await this.#stopWorker();
  }

  #next(): void {
    if (this.#running !== null || this.#queue.isEmpty) return;
    if (this.#worker === null) {
      this.#worker = this.#startWorker();
      return;
    }
    if (!this.#ready) return;
    const next = this.#queue.shift() as Waiting;
    this.#running = next;
    this.#worker.postMessage(next.job);
    this.#limit(this.#jobMsMax);
  }

  /** Its first message is null: it is ready. */
  #startWorker(): Worker {
    const worker = new Worker(new URL('./encoder-worker.ts', import.meta.url), {
      workerData: this.#modelDir,
    });
    worker.unref();
    worker.on('message', (ids: number[] | null) => {
      clearTimeout(this.#timer);
      this.#ready = true;
      if (ids !== null) this.#running?.resolve(ids);
      this.#running = null;
      this.#next();
    });
    worker.on('error', (error) => this.#abandon(error));
    return worker;
  }

  #leave(waiting: Waiting, reason: unknown): void {
    waiting.reject(reason);
    this.#queue.remove(waiting.client, waiting);
    if (waiting === this.#running) this.#limit(Math.min(LEFT_MS_MAX, this.#jobMsMax));
  }

  #limit(ms: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      const message = `The prompt could not be tokenized within ${this.#jobMsMax} ms.`;
      this.#abandon(new EncoderError('too_slow', message));
    }, ms);
  }

  /** Gives the running job up, with its worker; the next one gets a new worker. A worker that never ran fails the first. */
  #abandon(error: unknown): void {
    const failed = this.#running ?? this.#queue.shift();
    failed?.reject(error);
    this.#running = null;
    void this.#stopWorker();
    this.#next();
  }

  async #stopWorker(): Promise<void> {
    clearTimeout(this.#timer);
    const worker = this.#worker;
    this.#worker = null;
    this.#ready = false;
    worker?.removeAllListeners();
    await worker?.terminate();
  }
}
