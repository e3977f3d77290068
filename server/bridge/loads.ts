import type { Logger } from 'pino';
import { LorikeetError } from '../contract/errors.ts';
import { badRequest, OpenAiError } from '../openai/errors.ts';
import { Serial } from '../transfer/serial.ts';
import { rootMessage } from '../transfer/unreachable.ts';
import { alreadyLoaded, notLoaded, readLoad, readUnload, refuse, requireName } from '../vllm/load-body.ts';
import type { LoraRoot } from '../vllm/lora-root.ts';
import type { Loaded } from '../vllm/routes.ts';
import { AdapterOnDisk } from './adapter.ts';
import type { Fleet } from './fleet.ts';
import { type Names, readName } from './names.ts';
import type { PushTarget } from './push.ts';
import { everywhere, Lag, type Seen } from './sync.ts';

const LOADS_MAX = 64;
const NAMES_MAX = 4096;

export interface LoadsOptions {
  root: LoraRoot;
  names: Names;
  fleet: Pick<Fleet, 'ready'>;
  target: PushTarget;
  baseModel: () => Promise<string>;
  keep: number;
  /** For the push and until every pod has it. */
  syncMs: number;
  log: Logger;
}

type Step = Pick<Loaded, 'name'> & { adapter: string; step: number | null };

/** Adapters come from the trainer's disk, and go to all pods before the trainer hears that they are loaded. */
export class FleetLoads {
  readonly #options: LoadsOptions;
  readonly #adapters = new Serial();
  #running = 0;
  #count = 0;

  constructor(options: LoadsOptions) {
    this.#options = options;
  }

  async load(body: unknown, { inPlace = false } = {}): Promise<Loaded> {
    const { name, path, inPlace: asked } = readLoad(body);
    const { root, names } = this.#options;
    const openFile = root.filesOf(path);
    const named = { name, ...readName(name, await this.#options.baseModel()) };
    requireName(named.adapter);
    await this.#bounded(name, () =>
      this.#adapters.run(named.adapter, async () => {
        if (!inPlace && !asked && names.find(name) !== undefined) throw alreadyLoaded(name);
        const startedMs = performance.now();
        const tensors = await AdapterOnDisk.open(openFile).catch(refuse);
        try {
          await this.#bring(named, tensors, performance.now() - startedMs);
        } finally {
          await tensors.close();
        }
      }),
    );
    this.#count += 1;
    return { name, id: this.#count };
  }

  /** The name is forgotten at once. What pods hold goes with the last name of an adapter, where no operator keeps it. */
  async unload(body: unknown): Promise<string> {
    const name = readUnload(body);
    const { names, target, syncMs, log } = this.#options;
    const known = names.find(name);
    if (known === undefined) throw notLoaded(name);
    await this.#adapters.run(known.adapter, async () => {
      names.remove(name);
      const isLast = names.of(known.adapter).length === 0;
      const signal = AbortSignal.timeout(syncMs);
      const removed = isLast && (await target.remove(known.served, signal).catch(failed));
      log.info({ name, adapter: known.served, revision: known.revision, removed }, 'unloaded');
    });
    return name;
  }

  async #bring({ name, adapter, step: asked }: Step, tensors: AdapterOnDisk, readMs: number): Promise<void> {
    const { names, target, keep, syncMs, log } = this.#options;
    const signal = AbortSignal.timeout(syncMs);
    const startedMs = performance.now();
    const served = await target.servedName(adapter, signal).catch(failed);
    await this.#requireExpectable(served);
    const step = asked ?? (await this.#nextStep(adapter, served));
    const { revision, bytes } = tensors;
    const pushed = await target.push({ adapter, served, step, tensors, keep, signal }).catch(failed);
    const pushedMs = performance.now();
    const seen = await this.#seen({ served, revision }, signal);
    const swapMs = performance.now() - pushedMs;
    const loadedAt = Math.floor(Date.now() / 1000);
    const forgotten = names.add({ name, adapter, served, revision, step, loadedAt });
    log.info(
      {
        name,
        adapter: served,
        revision,
        step,
        bytes,
        pods: seen.pods,
        readMs: tenths(readMs),
        pushMs: tenths(pushedMs - startedMs),
        swapMs: tenths(swapMs),
        skewMs: tenths(Math.max(seen.skewMs, pushed.skewMs ?? 0)),
        forgotten: forgotten.map((version) => version.name),
      },
      'synced',
    );
  }

  /** Pods take the base's name for the base where a revision is expected. */
  async #requireExpectable(served: string): Promise<void> {
    if (served !== (await this.#options.baseModel())) return;
    throw badRequest(`Expected another servedName of the LoraAdapter than the base model's, ${served}`);
  }

  async #nextStep(adapter: string, served: string): Promise<number> {
    const own = this.#options.names.of(adapter).map(({ step }) => step);
    const cards = await Promise.all(this.#options.fleet.ready().map((pod) => pod.models().catch(() => [])));
    const theirs = cards.flat().flatMap(({ id, step }) => (id === served && step != null ? [step] : []));
    return Math.max(0, ...own, ...theirs) + 1;
  }

  async #seen(what: { served: string; revision: string }, signal: AbortSignal): Promise<Seen> {
    try {
      return await everywhere(this.#options.fleet, what, signal);
    } catch (error) {
      if (!(error instanceof Lag)) throw error;
      const message = `Expected ${what.revision} of ${what.served} on every pod within ${this.#options.syncMs} ms`;
      throw new OpenAiError('fleet_lags', `${message}: ${error.message}`);
    }
  }

  async #bounded(name: string, load: () => Promise<void>): Promise<void> {
    if (this.#running >= LOADS_MAX) throw new OpenAiError('overloaded', 'Too many loads are under way.');
    if (this.#options.names.all().length >= NAMES_MAX)
      throw badRequest(`Expected at most ${NAMES_MAX} loaded names: unload some`);
    this.#running += 1;
    try {
      await load();
    } catch (error) {
      this.#options.log.warn({ name, reason: (error as Error).message }, 'not loaded');
      throw error;
    } finally {
      this.#running -= 1;
    }
  }
}

/** What is wrong with the adapter is the trainer's; what is wrong between us and the pods is not. */
function failed(error: unknown): never {
  const isOurs =
    error instanceof LorikeetError && (error.code === 'unauthenticated' || error.code === 'forbidden');
  if (!isOurs && error instanceof LorikeetError && error.status < 500 && error.retryAfterSeconds === null)
    throw badRequest(error.message, error.field);
  const said = error instanceof LorikeetError ? error.message : rootMessage(error);
  throw new OpenAiError('push_failed', `The push failed: ${said}`);
}

function tenths(ms: number): number {
  return Math.round(ms * 10) / 10;
}
