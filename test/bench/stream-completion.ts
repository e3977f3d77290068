import { createInterface } from 'node:readline';
import { Readable } from 'node:stream';
import type { Trace } from './engine/trace.ts';

export interface CompletionRequest {
  model: string;
  prompt: number[];
  max_tokens: number;
}

/** One streamed completion. Tokens are counted by the usage in each event: an event may carry several, or no text. */
export async function streamCompletion(url: string, request: CompletionRequest): Promise<Trace> {
  const trace: Trace = { submittedMs: performance.now(), timesMs: [], firstToken: null };
  const response = await fetch(`${url}/v1/completions`, {
    method: 'POST',
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
  for await (const line of createInterface({ input: Readable.fromWeb(response.body) })) {
    if (!line.startsWith('data: {')) continue;
    const nowMs = performance.now();
    const event = JSON.parse(line.slice('data: '.length)) as {
      usage?: { completion_tokens?: number };
      error?: { message: string };
    };
    if (event.error) throw new Error(`The server failed: ${event.error.message}`);
    const tokens = event.usage?.completion_tokens ?? 0;
    while (trace.timesMs.length < tokens) trace.timesMs.push(nowMs);
  }
  if (trace.timesMs.length < request.max_tokens) {
    throw new Error(`The server made ${trace.timesMs.length} tokens of ${request.max_tokens}`);
  }
  return trace;
}
