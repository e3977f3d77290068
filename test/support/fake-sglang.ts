import { readFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { BASE_MARK, markOf } from './fake-vllm/server.ts';

const BASE = 'parrot';

/** SGLang's routes for adapters as its server has them, without a model. No real one is there to hold it against. */
export class FakeSglang {
  /** Marks of what it would answer, by the names of adapters. */
  readonly adapters = new Map<string, string>();
  readonly asked: Record<string, unknown>[] = [];
  readonly #server: Server;
  url = '';

  private constructor() {
    this.#server = createServer(async (request, response) => {
      const chunks: Buffer[] = [];
      for await (const chunk of request) chunks.push(chunk);
      const text = Buffer.concat(chunks).toString();
      const [status, body] = await this.#answer(request.url ?? '', text === '' ? {} : JSON.parse(text));
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
    });
  }

  static async start(): Promise<FakeSglang> {
    const fake = new FakeSglang();
    await new Promise<void>((resolve) => fake.#server.listen(0, '127.0.0.1', resolve));
    fake.url = `http://127.0.0.1:${(fake.#server.address() as AddressInfo).port}`;
    return fake;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #answer(path: string, body: Record<string, string>): Promise<[number, object]> {
    const name = body.lora_name ?? '';
    switch (path) {
      case '/v1/models':
        return [200, { data: [{ id: BASE, object: 'model', root: BASE, max_model_len: 1024 }] }];
      case '/get_server_info':
        return [
          200,
          { max_loaded_loras: 2, max_loras_per_batch: 1, max_lora_rank: 64, context_length: null },
        ];
      case '/load_lora_adapter':
        return await this.#load(name, body.lora_path ?? '');
      case '/unload_lora_adapter':
        if (!this.adapters.delete(name))
          return [400, { success: false, error_message: `LoRA with name ${name} does not exist` }];
        return [200, { success: true, error_message: '', loaded_adapters: this.#loaded() }];
      case '/v1/completions':
        return this.#complete(body);
      default:
        return [404, { detail: 'Not Found' }];
    }
  }

  async #load(name: string, path: string): Promise<[number, object]> {
    if (this.adapters.has(name))
      return [400, { success: false, error_message: `LoRA with name ${name} already exists` }];
    const [config = Buffer.alloc(0), tensors = Buffer.alloc(0)] = await Promise.all(
      ['adapter_config.json', 'adapter_model.safetensors'].map((file) => readFile(join(path, file))),
    );
    this.adapters.set(name, markOf({ config, tensors }));
    return [200, { success: true, error_message: '', loaded_adapters: this.#loaded() }];
  }

  #loaded(): Record<string, string> {
    return Object.fromEntries([...this.adapters.keys()].map((name) => [name, '']));
  }

  #complete(body: Record<string, unknown>): [number, object] {
    this.asked.push(body);
    const { lora_path: path, model = 'default', max_tokens: tokens = 16 } = body;
    const mark = path === undefined ? BASE_MARK : this.adapters.get(String(path));
    if (mark === undefined)
      return [
        400,
        {
          object: 'error',
          message: `The following requested LoRA adapters are not loaded: ${path}`,
          code: 400,
        },
      ];
    const choices = [
      { index: 0, text: mark.repeat(Number(tokens)), logprobs: null, finish_reason: 'length' },
    ];
    return [
      200,
      {
        id: '1',
        object: 'text_completion',
        created: 1,
        model,
        choices,
        usage: { completion_tokens: tokens },
      },
    ];
  }
}
