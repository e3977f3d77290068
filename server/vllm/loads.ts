import { putDirectory } from '../adapters/load-directory.ts';
import type { Registry } from '../adapters/registry.ts';
import { OpenAiError } from '../openai/errors.ts';
import { Serial } from '../transfer/serial.ts';
import { alreadyLoaded, notLoaded, readLoad, readUnload, refuse, requireName } from './load-body.ts';
import type { LoraRoot } from './lora-root.ts';
import type { Loaded } from './routes.ts';

/** Adapters come and go by the names and the folders that trainers write for vLLM. */
export class Loads {
  readonly #registry: Registry;
  readonly #root: LoraRoot | null;
  readonly #names = new Serial();
  #count = 0;

  constructor(registry: Registry, root: LoraRoot | null) {
    this.#registry = registry;
    this.#root = root;
  }

  /** Each load is a revision of its name, and what the name means from the reply on. */
  async load(body: unknown, { inPlace = false } = {}): Promise<Loaded> {
    const { name, path, inPlace: asked } = readLoad(body);
    if (this.#root === null) throw new OpenAiError('route_not_found', 'Loading needs --lora-root.');
    requireName(name);
    const files = this.#root.filesOf(path);
    await this.#names.run(name, async () => {
      if (!inPlace && !asked && this.#isLoaded(name)) throw alreadyLoaded(name);
      // As vLLM: the first one that a trainer writes has B = 0.
      await putDirectory(this.#registry, name, files, { allowZeroEffect: true }).catch(refuse);
    });
    this.#count += 1;
    return { name, id: this.#count };
  }

  async unload(body: unknown): Promise<string> {
    const name = readUnload(body);
    await this.#names.run(name, async () => {
      if (!this.#isLoaded(name)) throw notLoaded(name);
      await this.#registry.remove(name, null, null);
    });
    return name;
  }

  #isLoaded(name: string): boolean {
    return this.#registry.lookup.models().some((adapter) => adapter.name === name);
  }
}
