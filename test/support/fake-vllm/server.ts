import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/**
 * vLLM's protocol as its server speaks it, without a model: test/e2e/vllm holds it against a real one. What it generates is
 * a digit string of what it was asked under: every token names the bytes of the adapter that made it, so one that is
 * another's is seen.
 */
export interface FakeVllmOptions {
  host?: string;
  port?: number;
  baseName?: string;
  maxLoras?: number;
  maxLoraRank?: number;
  /** VLLM_SERVER_DEV_MODE: tells its configuration. */
  isDev?: boolean;
  version?: string;
  tokenMs?: number;
  /** Of its API key; null: it wants none. */
  token?: string | null;
}

interface Adapter {
  path: string;
  mark: string;
}

interface Asked {
  model?: string;
  prompt?: unknown;
  messages?: unknown;
  max_tokens?: number;
  stream?: boolean;
  cache_salt?: string;
}

export const BASE_MARK = 'base0000';

/** What every token of an answer under these files says. */
export function markOf({ config, tensors }: { config: Uint8Array; tensors: Uint8Array }): string {
  return createHash('sha256').update(config).update(tensors).digest('hex').slice(0, 8);
}

export class FakeVllm {
  readonly adapters = new Map<string, Adapter>();
  /** Bodies of what was asked of /v1/completions and /v1/chat/completions. */
  readonly asked: Asked[] = [];
  /** Calls of the routes that load and unload, by name. */
  readonly changes: string[] = [];
  readonly #options: Required<FakeVllmOptions>;
  readonly #server: Server;
  readonly #startedAt = Date.now() / 1000;
  url = '';
  running = 0;
  /** Names whose loading fails, with the words. */
  refuses = new Map<string, string>();

  private constructor(options: FakeVllmOptions) {
    this.#options = {
      host: '127.0.0.1',
      port: 0,
      baseName: 'parrot',
      maxLoras: 4,
      maxLoraRank: 64,
      isDev: true,
      version: '0.31.0',
      tokenMs: 0,
      token: null,
      ...options,
    };
    this.#server = createServer((request, response) => {
      this.#answer(request, response).catch((error) => response.destroy(error));
    });
  }

  static async start(options: FakeVllmOptions = {}): Promise<FakeVllm> {
    const fake = new FakeVllm(options);
    await new Promise<void>((resolve) =>
      fake.#server.listen(fake.#options.port, fake.#options.host, resolve),
    );
    fake.url = `http://${fake.#options.host}:${(fake.#server.address() as AddressInfo).port}`;
    return fake;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = (request.url ?? '').split('?')[0] ?? '';
    const { token } = this.#options;
    if (token !== null && path.startsWith('/v1/') && request.headers.authorization !== `Bearer ${token}`)
      return json(response, 401, { error: 'Unauthorized' });
    const body = await bodyOf(request);
    switch (`${request.method} ${path}`) {
      case 'GET /health':
        return void response.writeHead(200).end();
      case 'GET /v1/models':
        return json(response, 200, { object: 'list', data: this.#cards() });
      case 'GET /version':
        return json(response, 200, { version: this.#options.version });
      case 'GET /metrics':
        return void response.writeHead(200, { 'content-type': 'text/plain' }).end(this.#metrics());
      case 'GET /server_info':
        return this.#options.isDev
          ? json(response, 200, this.#info())
          : json(response, 404, { detail: 'Not Found' });
      case 'POST /v1/load_lora_adapter':
        return await this.#load(JSON.parse(body), response);
      case 'POST /v1/unload_lora_adapter':
        return this.#unload(JSON.parse(body), response);
      case 'POST /v1/completions':
      case 'POST /v1/chat/completions':
      case 'POST /inference/v1/generate':
        return await this.#generate(path, JSON.parse(body), response);
      case 'POST /echo':
        return void response.writeHead(200, { 'content-type': 'application/octet-stream' }).end(body);
      default:
        return json(response, 404, { detail: 'Not Found' });
    }
  }

  #cards() {
    const { baseName } = this.#options;
    const base = {
      id: baseName,
      object: 'model',
      root: '/model',
      parent: null as string | null,
      max_model_len: 1024,
    };
    const loaded = [...this.adapters].map(([id, { path }]) => {
      return { ...base, id, root: path, parent: baseName, max_model_len: null };
    });
    return [base, ...loaded];
  }

  #metrics(): string {
    const { maxLoras, baseName } = this.#options;
    const running = [...this.adapters.keys()].join(',');
    return [
      '# HELP process_start_time_seconds Start time of the process since unix epoch in seconds.',
      '# TYPE process_start_time_seconds gauge',
      `process_start_time_seconds ${this.#startedAt}`,
      '# HELP vllm:num_requests_running Number of requests in model execution batches.',
      '# TYPE vllm:num_requests_running gauge',
      `vllm:num_requests_running{engine="0",model_name="${baseName}"} ${this.running}`,
      '# HELP vllm:lora_requests_info Running stats on lora requests.',
      '# TYPE vllm:lora_requests_info gauge',
      `vllm:lora_requests_info{max_lora="${maxLoras}",running_lora_adapters="${running}",waiting_lora_adapters=""} 1.0`,
      '',
    ].join('\n');
  }

  #info() {
    const { maxLoras, maxLoraRank } = this.#options;
    const lora_config = { max_lora_rank: maxLoraRank, max_loras: maxLoras, max_cpu_loras: maxLoras };
    return { vllm_config: { lora_config } };
  }

  async #load({ lora_name, lora_path }: Record<string, string>, response: ServerResponse): Promise<void> {
    const name = lora_name ?? '';
    this.changes.push(`load ${name}`);
    if (this.adapters.has(name))
      return refuse(
        response,
        400,
        `The lora adapter '${name}' has already been loaded. If you want to load the adapter in place, set 'load_inplace' to True.`,
      );
    const words = this.refuses.get(name);
    if (words !== undefined) return refuse(response, 400, words);
    const path = lora_path ?? '';
    const files = await Promise.all(
      ['adapter_config.json', 'adapter_model.safetensors'].map((file) => readFile(join(path, file))),
    ).catch(() => null);
    if (files === null)
      return refuse(response, 404, `Loading lora ${name} failed: No adapter found for ${path}`);
    const [config = Buffer.alloc(0), tensors = Buffer.alloc(0)] = files;
    if (JSON.parse(config.toString()).r > this.#options.maxLoraRank)
      return refuse(
        response,
        400,
        `LoRA rank ${JSON.parse(config.toString()).r} is greater than max_lora_rank ${this.#options.maxLoraRank}.`,
      );
    this.adapters.set(name, { path, mark: markOf({ config, tensors }) });
    response.end(`Success: LoRA adapter '${name}' added successfully.`);
  }

  #unload({ lora_name: name = '' }: Record<string, string>, response: ServerResponse): void {
    this.changes.push(`unload ${name}`);
    if (!this.adapters.delete(name)) {
      refuse(response, 404, `The lora adapter '${name}' cannot be found.`);
      return;
    }
    response.end(`Success: LoRA adapter '${name}' removed successfully.`);
  }

  async #generate(path: string, asked: Asked, response: ServerResponse): Promise<void> {
    this.asked.push(asked);
    const { baseName, tokenMs } = this.#options;
    const { model = baseName, max_tokens: tokens = 16, stream = false } = asked;
    const adapter = this.adapters.get(model);
    if (adapter === undefined && model !== baseName)
      return refuse(response, 404, `The model \`${model}\` does not exist.`, 'NotFoundError');
    const mark = adapter?.mark ?? BASE_MARK;
    const isChat = path.includes('chat');
    const object = isChat ? 'chat.completion' : 'text_completion';
    const head = { id: 'cmpl-1', object: stream ? `${object}.chunk` : object, created: 1, model };
    const choice = (text: string, finish_reason: string | null) => {
      const content = { role: 'assistant', content: text };
      const said = isChat ? { [stream ? 'delta' : 'message']: content } : { text };
      return { index: 0, ...said, logprobs: null, finish_reason };
    };
    const usage = { prompt_tokens: 1, total_tokens: 1 + tokens, completion_tokens: tokens };
    this.running += 1;
    const gone = new AbortController();
    response.once('close', () => gone.abort());
    try {
      if (!stream) {
        if (tokenMs > 0) await sleep(tokens * tokenMs, undefined, { signal: gone.signal });
        return json(response, 200, { ...head, choices: [choice(mark.repeat(tokens), 'length')], usage });
      }
      response.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8' });
      for (let token = 1; token <= tokens; token += 1) {
        if (tokenMs > 0) await sleep(tokenMs, undefined, { signal: gone.signal });
        const choices = [choice(mark, token === tokens ? 'length' : null)];
        response.write(`data: ${JSON.stringify({ ...head, choices })}\n\n`);
      }
      response.end('data: [DONE]\n\n');
    } catch {
      response.destroy();
    } finally {
      this.running -= 1;
    }
  }
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

function json(response: ServerResponse, status: number, body: object): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
}

function refuse(response: ServerResponse, code: number, message: string, type = 'BadRequestError'): void {
  json(response, code, { error: { message, type, param: null, code } });
}
