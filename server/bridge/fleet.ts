import { lookup } from 'node:dns/promises';
import type { Logger } from 'pino';
import type { Dispatcher } from 'undici';
import { OpenAiError } from '../openai/errors.ts';
import { rootMessage } from '../transfer/unreachable.ts';
import { Pod } from './pods.ts';

const LOOK_MS = 1_000;
const DISCOVER_MS = 5_000;
/** More addresses of one name are passed over. */
const PODS_MAX = 1024;

/** The URLs of the pods that there are now. */
export type Discover = () => Promise<readonly string[]>;

/** Of a headless Service: each address is a pod. `nameAndPort`: `parrot-pods.team-a:8000`. */
export function byDns(nameAndPort: string): Discover {
  const at = nameAndPort.lastIndexOf(':');
  const [name, port] = [nameAndPort.slice(0, at), nameAndPort.slice(at + 1)];
  return async () => {
    const found = await lookup(name, { all: true });
    return found.map(({ address, family }) => `http://${family === 6 ? `[${address}]` : address}:${port}`);
  };
}

export interface FleetOptions {
  discover: Discover;
  dispatcher: Dispatcher;
  lookMs?: number;
  discoverMs?: number;
  log: Logger;
}

/** The pods that serve, as they come and go. */
export class Fleet {
  readonly #options: FleetOptions;
  #pods: Pod[] = [];
  readonly #timers: NodeJS.Timeout[] = [];
  #discovering: Promise<void> | null = null;

  constructor(options: FleetOptions) {
    this.#options = options;
  }

  /** Returns when each pod has answered, or has not. */
  async start(): Promise<void> {
    const { lookMs = LOOK_MS, discoverMs = DISCOVER_MS } = this.#options;
    await this.#discover();
    this.#timers.push(setInterval(() => void this.#discover(), discoverMs));
    this.#timers.push(setInterval(() => void this.#look(), lookMs));
  }

  stop(): void {
    for (const timer of this.#timers) clearInterval(timer);
  }

  /** Those that are ready. */
  ready(): Pod[] {
    return this.#pods.filter(({ isReady }) => isReady);
  }

  /** On every ready pod. Throws where one did not answer: what it knows may still be used. */
  async resetPrefixCache(): Promise<void> {
    await Promise.all(this.ready().map((pod) => pod.resetPrefixCache()));
  }

  /** One at a time: a look-up may take longer than until the next. */
  #discover(): Promise<void> {
    this.#discovering ??= this.#discoverOnce().finally(() => {
      this.#discovering = null;
    });
    return this.#discovering;
  }

  async #discoverOnce(): Promise<void> {
    const { discover, dispatcher, log } = this.#options;
    try {
      const urls = [...new Set(await discover())].slice(0, PODS_MAX);
      const known = new Map(this.#pods.map((pod) => [pod.url, pod]));
      this.#pods = urls.map((url) => known.get(url) ?? new Pod(url, dispatcher));
      // A pod that is gone lets its running requests finish.
      if (urls.length !== known.size || urls.some((url) => !known.has(url)))
        log.info({ pods: urls }, 'pods changed');
    } catch (error) {
      // Those that were known may serve still.
      log.warn({ reason: rootMessage(error) }, 'the pods cannot be looked up');
    }
    await this.#look();
  }

  async #look(): Promise<void> {
    await Promise.all(this.#pods.map((pod) => this.#lookAt(pod)));
  }

  async #lookAt(pod: Pod): Promise<void> {
    const before = pod.isReady;
    await pod.look();
    if (pod.isReady !== before) this.#options.log.info({ pod: pod.url, ready: pod.isReady }, 'a pod changed');
  }
}

export function notReady(reason = 'No pod is ready.'): OpenAiError {
  return new OpenAiError('not_ready', reason);
}
