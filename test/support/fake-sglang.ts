import { readFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { BASE_MARK, markOf } from './fake-vllm/server.ts';

const BASE = 'parrot';

export interface FakeSglangOptions {
  /** `--max-loaded-loras` */
  maxLoadedLoras?: number;
  /** As of before 0.5: its list of models is of the base alone, and some routes had other names. */
  isOld?: boolean;
}

interface Adapter {
  path: string;
  mark: string;
}

type Reply = [status: number, body: object];

/** SGLang's routes as its server has them, without a model: test/e2e/sglang holds it against a real one. */
export class FakeSglang {
  /** By name, the least recently used first. */
  readonly adapters = new Map<string, Adapter>();
  readonly asked: Record<string, unknown>[] = [];
  readonly #options: Required<FakeSglangOptions>;
  readonly #server: Server;
  url = '';

  private constructor({ maxLoadedLoras = 2, isOld = false }: FakeSglangOptions) {
    this.#options = { maxLoadedLoras, isOld };
    this.#server = createServer((request, response) => void this.#serve(request, response));
  }

  static async start(options: FakeSglangOptions = {}): Promise<FakeSglang> {
    const fake = new FakeSglang(options);
    await new Promise<void>((resolve) => fake.#server.listen(0, '127.0.0.1', resolve));
    fake.url = `http://127.0.0.1:${(fake.#server.address() as AddressInfo).port}`;
    return fake;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const text = Buffer.concat(chunks).toString();
    const asked = text === '' ? {} : JSON.parse(text);
    const [status, body] = await this.#answer(request.url ?? '', asked);
    if (status === 200 && asked.stream === true) {
      const all = 'meta_info' in body ? [JSON.stringify(body)] : eventsOf(body as Completion);
      const events = [...all, '[DONE]'].map((event) => `data: ${event}\n\n`);
      response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8' }).end(events.join(''));
      return;
    }
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
  }

  async #answer(path: string, body: Record<string, string>): Promise<Reply> {
    const name = body.lora_name ?? '';
    switch (path) {
      case '/v1/models':
        return [200, { object: 'list', data: this.#models() }];
      case this.#options.isOld ? '/get_server_info' : '/server_info':
        return [
          200,
          {
            served_model_name: BASE,
            context_length: 1024,
            max_loaded_loras: this.#options.maxLoadedLoras,
            max_loras_per_batch: 1,
            max_lora_rank: 64,
          },
        ];
      case '/load_lora_adapter':
        return await this.#load(name, body.lora_path ?? '');
      case '/unload_lora_adapter':
        if (!this.adapters.delete(name)) return this.#refuse(`LoRA with name ${name} does not exist.`);
        return this.#changed();
      case '/v1/completions':
        return this.#complete(body);
      case '/generate':
        return this.#generate(body);
      default:
        return [404, { detail: 'Not Found' }];
    }
  }

  #models(): object[] {
    const base = { id: BASE, object: 'model', root: BASE, parent: null, max_model_len: 1024 };
    if (this.#options.isOld) return [base];
    const adapters = [...this.adapters].map(([id, { path }]) => {
      return { id, object: 'model', root: path, parent: BASE, max_model_len: null };
    });
    return [base, ...adapters];
  }

  /** One more than it holds pushes out the least recently used. */
  async #load(name: string, path: string): Promise<Reply> {
    if (this.adapters.has(name))
      return this.#refuse(`Failed to load LoRA adapter ${name} because it is already loaded`);
    const files = ['adapter_config.json', 'adapter_model.safetensors'].map((file) =>
      readFile(join(path, file)),
    );
    const [config, tensors] = await Promise.all(files).catch(() => []);
    if (config === undefined || tensors === undefined)
      return this.#refuse(`Repo id must use alphanumeric chars: '${path}'.`);
    this.adapters.set(name, { path, mark: markOf({ config, tensors }) });
    const [oldest = ''] = this.adapters.keys();
    if (this.adapters.size > this.#options.maxLoadedLoras) this.adapters.delete(oldest);
    return this.#changed();
  }

  #loaded(): Record<string, string> {
    return Object.fromEntries([...this.adapters].map(([name, { path }]) => [name, path]));
  }

  #changed(): Reply {
    return [200, { success: true, error_message: '', loaded_adapters: this.#loaded() }];
  }

  #refuse(message: string): Reply {
    return [400, { success: false, error_message: message, loaded_adapters: this.#loaded() }];
  }

  /** Of a model's name it reads only what follows a colon: the name of an adapter. */
  #complete(body: Record<string, unknown>): Reply {
    this.asked.push(body);
    const { lora_path: path, model = 'default', max_tokens: tokens = 16 } = body;
    const [, ofModel] = String(model).split(':');
    const name = path ?? ofModel;
    const mark = name === undefined ? BASE_MARK : this.adapters.get(String(name))?.mark;
    if (mark === undefined) {
      const message = `Got LoRA adapter that has never been loaded: ${name}\nAll loaded adapters: dict_keys([]).`;
      return [400, { object: 'error', message, type: 'BadRequestError', param: null, code: 400 }];
    }
    const text = mark.repeat(Number(tokens));
    const choice = { index: 0, text, logprobs: null, finish_reason: 'length' };
    const usage = { completion_tokens: tokens };
    const head = { id: '1', object: 'text_completion', created: 1, model };
    return [200, { ...head, choices: [choice], usage, metadata: versionOf(Number(tokens)) }];
  }

  /** Its own way, of which all that the sidecar reads. */
  #generate(body: Record<string, unknown>): Reply {
    const { sampling_params: { max_new_tokens: tokens = 16 } = {} } = body as {
      sampling_params?: { max_new_tokens?: number };
    };
    const [status, answer] = this.#complete({ lora_path: body.lora_path, max_tokens: tokens });
    if (status !== 200) return [status, answer];
    const { choices } = answer as Completion;
    const finish_reason = { type: 'length', length: tokens };
    return [200, { text: choices[0].text, meta_info: { finish_reason, ...versionOf(tokens) } }];
  }
}

/** Nobody has changed the weights of the base. */
const versionOf = (tokens: number) => ({
  weight_version: 'default',
  weight_versions: [{ version: 'default', start: 0, end: tokens }],
});

interface Completion {
  choices: [{ text: string }];
}

/** A token each, of which the last ends the choice. */
function eventsOf(body: Completion): string[] {
  const tokens = body.choices[0].text.match(/.{8}/g) ?? [];
  return tokens.map((text, at) => {
    const finish_reason = at === tokens.length - 1 ? 'length' : null;
    const choices = [{ ...body.choices[0], text, finish_reason }];
    return JSON.stringify({ ...body, choices, usage: null, metadata: undefined });
  });
}
