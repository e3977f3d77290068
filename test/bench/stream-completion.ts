import { createInterface } from 'node:readline';
import { Readable } from 'node:stream';
import type { Trace } from './engine/trace.ts';

export interface CompletionRequest {
  model: string;
  prompt: number[];
  max_tokens: number;
}

interface Watching {
  signal?: AbortSignal;
  onTokens?: () => void;
}

/** One streamed completion, to its end, or at the signal as far as it is. */
export async function streamCompletion(
  url: string,
  request: CompletionRequest,
  { signal, onTokens = () => undefined }: Watching = {},
): Promise<Trace> {
  const trace: Trace = { submittedMs: performance.now(), timesMs: [], firstToken: null };
  try {
    for await (const tokens of countTokens(url, request, signal)) {
      const nowMs = performance.now();
      while (trace.timesMs.length < tokens) trace.timesMs.push(nowMs);
      onTokens();
    }
  } catch (error) {
    if (signal?.aborted !== true) throw error;
  }
  return trace;
}

/** How many there are, at each event. They are counted by its usage: an event may carry several, or no text. */
async function* countTokens(
  url: string,
  request: CompletionRequest,
  signal: AbortSignal | undefined,
): AsyncGenerator<number> {
  const response = await fetch(`${url}/v1/completions`, {
    method: 'POST',
    ...(signal === undefined ? {} : { signal }),
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      ...request,
      temperature: 0,
      ignore_eos: true,
      stream: true,
      stream_options: { include_usage: true, continuous_usage_stats: true },
    }),
  });
  if (!response.ok || response.body === null) {
    throw new Error(`The server answered ${response.status}: ${(await response.text()).slice(0, 300)}`);
  }
  let tokens = 0;
  for await (const line of createInterface({ input: Readable.fromWeb(response.body) })) {
    if (signal?.aborted) return;
    if (!line.startsWith('data: {')) continue;
    const event = JSON.parse(line.slice('data: '.length)) as {
      usage?: { completion_tokens?: number };
      error?: { message: string };
    };
    if (event.error) throw new Error(`The server failed: ${event.error.message}`);
    tokens = event.usage?.completion_tokens ?? tokens;
    yield tokens;
  }
  if (tokens < request.max_tokens) {
    throw new Error(`The server made ${tokens} tokens of ${request.max_tokens}`);
  }
}
