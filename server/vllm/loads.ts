import { z } from 'zod';
import { putDirectory } from '../adapters/load-directory.ts';
import type { Registry } from '../adapters/registry.ts';
import { AdapterName } from '../contract/adapter-api.ts';
import { LorikeetError } from '../contract/errors.ts';
import { plain, quoted } from '../contract/strict-json.ts';
import { badRequest, OpenAiError } from '../openai/errors.ts';
import { parseBody } from '../openai/schemas.ts';
import { Serial } from '../transfer/serial.ts';
import type { LoraRoot } from './lora-root.ts';

const text = z.string().nullish();
const LoadBody = z.object({ lora_name: text, lora_path: text, load_inplace: z.boolean().nullish() });
const UnloadBody = z.object({ lora_name: text });

export interface Loaded {
  name: string;
  /** Counts the loads of this server: vLLM's number of an adapter, which must differ. */
  id: number;
}

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
    const { lora_name: name, lora_path: path, load_inplace } = parseBody(LoadBody, body);
    if (!name || !path) throw wrong("Both 'lora_name' and 'lora_path' must be provided.");
    if (this.#root === null) throw new OpenAiError('route_not_found', 'Loading needs --lora-root.');
    requireName(name);
    const files = this.#root.filesOf(path);
    await this.#names.run(name, async () => {
      if (!inPlace && load_inplace !== true && this.#isLoaded(name)) throw alreadyLoaded(name);
      // As vLLM: the first one that a trainer writes has B = 0.
      await putDirectory(this.#registry, name, files, { allowZeroEffect: true }).catch(refuse);
    });
    this.#count += 1;
    return { name, id: this.#count };
  }

  async unload(body: unknown): Promise<string> {
    const { lora_name: name } = parseBody(UnloadBody, body);
    if (!name) throw wrong("'lora_name' needs to be provided to unload a LoRA adapter.");
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

function requireName(name: string): void {
  if (AdapterName.safeParse(name).success) return;
  throw wrong(
    `Expected a name of A-Z a-z 0-9 . _ - : / and at the end @<number> for lora_name but received ${quoted(name)}`,
  );
}

/** Which adapter is refused, and why, is for its caller to read; vLLM has one status for that. */
function refuse(error: unknown): never {
  if (error instanceof LorikeetError && error.status < 500) throw badRequest(error.message, error.field);
  throw error;
}

function wrong(message: string): OpenAiError {
  return new OpenAiError('invalid_user_input', message);
}

function alreadyLoaded(name: string): OpenAiError {
  return wrong(
    `The lora adapter '${name}' has already been loaded. If you want to load the adapter in place, set 'load_inplace' to True.`,
  );
}

function notLoaded(name: string): OpenAiError {
  return new OpenAiError('adapter_not_found', `The lora adapter '${plain(name)}' cannot be found.`);
}
