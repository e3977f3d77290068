import { pathToFileURL } from 'node:url';
import { type Case, DECODE_PROMPT_TOKENS, PREFILL_TOKENS } from './cases.ts';
import { readJob } from './child.ts';
import type { LlamaCppJob } from './llama-cpp.ts';
import { type Generate, measureCase, type Trace, type TurnResult } from './trace.ts';

/** The part of node-llama-cpp that is used. */
interface Sequence {
  evaluate(
    tokens: number[],
    options: { temperature: number; yieldEogToken: boolean },
  ): AsyncGenerator<number>;
  clearHistory(): Promise<void>;
}
interface Context {
  getSequence(): Sequence;
  dispose(): Promise<void>;
}
interface Model {
  createContext(options: Record<string, unknown>): Promise<Context>;
}
interface NodeLlamaCpp {
  getLlama(options: Record<string, unknown>): Promise<{
    llamaCppRelease: { release: string };
    loadModel(options: Record<string, unknown>): Promise<Model>;
    dispose(): Promise<void>;
  }>;
}

async function turn(job: LlamaCppJob): Promise<TurnResult> {
  const { getLlama } = (await import(pathToFileURL(job.module).href)) as NodeLlamaCpp;
  const llama = await getLlama({
    gpu: false,
    build: 'never',
    skipDownload: true,
    progressLogs: false,
    logLevel: 'error',
    maxThreads: job.threads,
  });
  const model = await llama.loadModel({ modelPath: job.gguf });
  const about = `release ${llama.llamaCppRelease.release}`;
  const result: TurnResult = { about, rates: {}, firstTokens: [], load: null };
  for (const item of job.cases) {
    const context = await model.createContext(contextOptions(item, job.threads));
    const sequences = Array.from({ length: item.sequences }, () => context.getSequence());
    const { rate, firstTokens } = await measureCase(item, job.effort, job.vocab, generateWith(sequences));
    result.rates[item.name] = rate;
    if (item.name === 'decode-16') result.firstTokens = firstTokens;
    await context.dispose();
  }
  await llama.dispose();
  return result;
}

function contextOptions({ kind, sequences }: Case, threads: number): Record<string, unknown> {
  // Of one sequence.
  const contextSize = kind === 'prefill' ? PREFILL_TOKENS + 64 : DECODE_PROMPT_TOKENS + 112;
  return { contextSize, sequences, batchSize: PREFILL_TOKENS, threads: { ideal: threads, min: threads } };
}

/** All sequences step together: left alone, node-llama-cpp starts a batch as soon as the first one is back. */
function generateWith(sequences: Sequence[]): Generate {
  return async (prompts, maxTokens) => {
    await Promise.all(sequences.map((sequence) => sequence.clearHistory()));
    const submittedMs = performance.now();
    const running = prompts.map((prompt, index) =>
      (sequences[index] as Sequence).evaluate(prompt, { temperature: 0, yieldEogToken: true }),
    );
    const traces = prompts.map((): Trace => ({ submittedMs, timesMs: [], firstToken: null }));
    for (let step = 0; step < maxTokens; step++) {
      const replies = await Promise.all(running.map((sequence) => sequence.next()));
      const nowMs = performance.now();
      for (const [index, { value, done }] of replies.entries()) {
        if (done) throw new Error(`llama.cpp ended sequence ${index} after ${step} tokens`);
        const trace = traces[index] as Trace;
        trace.firstToken ??= value;
        trace.timesMs.push(nowMs);
      }
    }
    await Promise.all(running.map((sequence) => sequence.return(undefined)));
    return traces;
  };
}

process.stdout.write(`${JSON.stringify(await turn(await readJob<LlamaCppJob>()))}\n`);
