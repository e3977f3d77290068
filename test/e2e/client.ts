import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { PARROT } from './world.ts';

/** A client of the serving API, and of the push endpoint, as a user would write one: fetch and nothing else. */

const Lora = z.object({ name: z.string(), revision: z.string(), step: z.number().nullable() }).nullable();

const ChatReply = z.object({
  choices: z
    .array(z.object({ message: z.object({ content: z.string() }), finish_reason: z.string() }))
    .min(1),
  lora: Lora,
});

export interface Answer {
  status: number;
  text: string;
  /** Of the body's `lora` object. */
  revision: string | null;
  /** Of the `x-lora-revision` header. */
  header: string | null;
}

export const SERVING_PORT = 8000;
const ADMIN_PORT = 8001;
export const PUSH_PORT = 8080;

export function servingUrl(ip: string): string {
  return `http://${ip}:${SERVING_PORT}`;
}

export function adminUrl(ip: string): string {
  return `http://${ip}:${ADMIN_PORT}`;
}

export function chatBody(model: string, question: string, more: object = {}): string {
  return JSON.stringify({
    model,
    messages: [{ role: 'user', content: question }],
    max_tokens: 40,
    temperature: 0,
    ...more,
  });
}

const JSON_TYPE = { 'content-type': 'application/json' };

export function ask(ip: string, model: string, question: string): Promise<Answer> {
  return askAt(servingUrl(ip), model, question);
}

/** The same of a pod that is reached at another URL than its own. */
export async function askAt(base: string, model: string, question: string): Promise<Answer> {
  const url = `${base}/v1/chat/completions`;
  const response = await fetch(url, { method: 'POST', headers: JSON_TYPE, body: chatBody(model, question) });
  const body: unknown = await response.json();
  const header = response.headers.get('x-lora-revision');
  if (response.status !== 200)
    return { status: response.status, text: JSON.stringify(body), revision: null, header };
  const { choices, lora } = ChatReply.parse(body);
  return { status: 200, text: choices[0]?.message.content ?? '', revision: lora?.revision ?? null, header };
}

const Chunk = z.object({
  choices: z.array(z.object({ delta: z.object({ content: z.string().nullish() }).partial() })),
  lora: Lora.optional(),
});

export interface Stream {
  /** Settles with the first token. */
  started: Promise<void>;
  readonly ended: boolean;
  /** Settles at the end. */
  done: Promise<{ text: string; revision: string | null; header: string | null }>;
}

/** A streamed chat; `more` lengthens it (`ignore_eos`, `max_tokens`). */
export function stream(ip: string, model: string, question: string, more: object = {}): Stream {
  return streamAt(servingUrl(ip), model, question, more);
}

export function streamAt(base: string, model: string, question: string, more: object = {}): Stream {
  const started = Promise.withResolvers<void>();
  const run = async () => {
    const response = await fetch(`${base}/v1/chat/completions`, {
      method: 'POST',
      headers: JSON_TYPE,
      body: chatBody(model, question, { stream: true, ...more }),
    });
    if (response.status !== 200 || !response.body) throw new Error(`stream: ${await response.text()}`);
    let text = '';
    let revision: string | null = null;
    let pending = '';
    for await (const piece of response.body.pipeThrough(new TextDecoderStream())) {
      pending += piece;
      const events = pending.split('\n\n');
      pending = events.pop() ?? '';
      for (const event of events) {
        if (!event.startsWith('data: ') || event === 'data: [DONE]') continue;
        const chunk = Chunk.parse(JSON.parse(event.slice('data: '.length)));
        const content = chunk.choices[0]?.delta.content ?? '';
        if (content !== '') started.resolve();
        text += content;
        if (chunk.lora !== undefined && chunk.lora !== null) revision = chunk.lora.revision;
      }
    }
    return { text, revision, header: response.headers.get('x-lora-revision') };
  };
  let ended = false;
  const done = run().finally(() => {
    ended = true;
  });
  done.catch((error: unknown) => started.reject(error));
  return {
    started: started.promise,
    done,
    get ended() {
      return ended;
    },
  };
}

export interface AdapterFiles {
  tensors: Buffer;
  config: Buffer;
}

export async function fixtureAdapter(name: string): Promise<AdapterFiles> {
  const dir = join(PARROT, 'adapters', name);
  const [tensors, config] = await Promise.all([
    readFile(join(dir, 'adapter_model.safetensors')),
    readFile(join(dir, 'adapter_config.json')),
  ]);
  return { tensors, config };
}

export const PushReply = z.object({
  revision: z.string(),
  step: z.number().nullable(),
  bytes: z.number(),
  pods: z.array(z.object({ name: z.string(), state: z.string(), ms: z.number() })),
  swap: z.object({ durationMs: z.number(), skewMs: z.number() }).nullable(),
  timings: z.record(z.string(), z.number()),
});
export type PushReply = z.infer<typeof PushReply>;

export function pushUrl(ip: string, namespace: string, name: string): string {
  return `http://${ip}:${PUSH_PORT}${pushPath(namespace, name)}`;
}

export function pushPath(namespace: string, name: string): string {
  return `/v1/namespaces/${namespace}/adapters/${name}/revisions`;
}

export interface PushOptions {
  token?: string;
  step?: number;
  ifMatch?: string;
  traceparent?: string;
}

/** The raw reply, so that a test may look at refusals too. */
export async function push(url: string, files: AdapterFiles, options: PushOptions = {}): Promise<Response> {
  const headers: Record<string, string> = { 'x-lora-config': files.config.toString('base64url') };
  if (options.token !== undefined) headers.authorization = `Bearer ${options.token}`;
  if (options.step !== undefined) headers['x-lora-step'] = String(options.step);
  if (options.ifMatch !== undefined) headers['if-match'] = options.ifMatch;
  if (options.traceparent !== undefined) headers.traceparent = options.traceparent;
  return await fetch(url, { method: 'PUT', headers, body: new Uint8Array(files.tensors) });
}

export async function pushed(
  url: string,
  files: AdapterFiles,
  options: PushOptions = {},
): Promise<PushReply> {
  const response = await push(url, files, options);
  const body: unknown = await response.json();
  if (response.status !== 200) throw new Error(`push: ${response.status} ${JSON.stringify(body)}`);
  return PushReply.parse(body);
}
