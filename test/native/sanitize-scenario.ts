/** What sanitize.ts runs under a sanitizer. */
import { equal, ok } from 'node:assert/strict';
import { randomAdapter, TestEngine } from './support.ts';

const PROMPT = Array.from({ length: 40 }, (_, i) => i + 6);

const STYLE = { kind: 'adapter', name: 'style' } as const;
const ABSENT = ['not_resident', 'adapter_not_found'];

const scenarios: Record<string, () => Promise<void>> = { churn, 'exit-while-busy': exitWhileBusy };
await scenarios[process.argv[2] ?? 'churn']?.();

async function churn(): Promise<void> {
  for (const backend of ['reference', 'cpu'] as const) {
    await using served = await TestEngine.open('qwen3', {
      backend,
      slots: 3,
      threads: 3,
      maxBatchTokens: 24,
      kvBytes: 1 << 20,
      prefixCache: true,
    });
    const running: Promise<unknown>[] = [];
    for (let round = 0; round < 24; round++) {
      const revision = `r${round % 5}`;
      // The buffer is reachable from the engine alone while it is packed.
      const staged = served.engine.stage(revision, ...stageArguments(served, round));
      global.gc?.();
      // Leases come and go, and somebody looks, while the revision is staged.
      for (let i = 0; i < 4; i++) {
        const request = served.start({ prompt: PROMPT.slice(0, 3 + i), maxTokens: 3, target: STYLE });
        running.push(request.result.catch((error: { code: string }) => ok(ABSENT.includes(error.code))));
        served.engine.snapshot();
      }
      if ((await staged).slot !== null) await served.engine.activate('style', revision, true);
      for (let i = 0; i < 3; i++) {
        const target = i === 0 ? ({ kind: 'base' } as const) : STYLE;
        const request = served.start({
          prompt: PROMPT,
          target,
          temperature: i,
          seed: round,
          logprobs: 2,
          promptLogprobs: 1,
        });
        running.push(request.result.catch((error: { code: string }) => ok(ABSENT.includes(error.code))));
        if (i === 2) served.engine.cancel(request.id);
      }
      if (round % 4 === 3) await served.engine.release(revision);
      if (round % 6 === 5) await served.engine.deactivate('style');
      if (round % 6 === 5) await Promise.all(running);
      served.engine.snapshot();
    }
    await Promise.all(running);
    for (const { revision } of served.engine.snapshot().slots) await served.engine.release(revision);
    equal(served.engine.snapshot().kvBlocksUsed, 0);
    equal(served.engine.snapshot().pagesUsed, 0);
  }
}

function stageArguments(
  served: TestEngine,
  seed: number,
): [Uint8Array, ReturnType<typeof randomAdapter>['modules']] {
  const { body, modules } = randomAdapter(served.model, { rank: 1 + ((seed * 7) % 40), seed });
  return [body, modules];
}

/** The environment ends while sequences run and a revision is being packed. */
async function exitWhileBusy(): Promise<void> {
  const served = await TestEngine.open('qwen3', { threads: 2 });
  for (let i = 0; i < 4; i++) served.start({ prompt: PROMPT, stopTokens: [], maxTokens: 1000 });
  void served.engine.stage('r0', ...stageArguments(served, 5));
  await new Promise((done) => setTimeout(done, 100));
  ok(served.engine.snapshot().running > 0);
  process.exit(0);
}
