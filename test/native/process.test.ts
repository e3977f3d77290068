import { execFile } from 'node:child_process';
import { resolve } from 'node:path';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';

const ROOT = resolve(import.meta.dirname, '../..');
const execute = promisify(execFile);

const IMPORTS = `import { createEngine } from './native/index.ts';
import { DEFAULTS, fixtureModel, GREEDY, TestEngine } from './test/native/support.ts';`;

/** Runs a script with the helpers of support.ts in a process of its own. */
function runScript(script: string, env: Record<string, string> = {}): Promise<{ stdout: string }> {
  const source = `${IMPORTS}\n${script}`;
  const args = ['--expose-gc', '--input-type=module', '--eval', source];
  return execute(process.execPath, args, { cwd: ROOT, env: { ...process.env, ...env }, timeout: 20_000 });
}

// Each starts a process, which takes about half a second.
it('says how to build an addon that is missing', async () => {
  const failed = runScript(`await TestEngine.open('parrot');`, { LORIKEET_ADDON: '/no/such/addon.node' });
  await expect(failed).rejects.toMatchObject({ stderr: expect.stringContaining('npm run build:addon') });
});

it('lets the process end with an idle engine, but not before its requests', async () => {
  const script = `const served = await TestEngine.open('parrot');
    served.generate({ prompt: [1, 2, 3], stopTokens: [], maxTokens: 9 }).then(({ tokens }) => console.log(tokens.length));`;
  expect((await runScript(script)).stdout).toBe('9\n');
});

it('collects an engine that nobody uses, but not before it has answered', async () => {
  const script = `const model = await fixtureModel('qwen3');
    const collected = [];
    const registry = new FinalizationRegistry((name) => collected.push(name));
    const collect = async () => {
      for (let i = 0; i < 5; i++) { globalThis.gc(); await new Promise(setImmediate); }
    };
    const answer = new Promise((done) => {
      const engine = createEngine({ ...DEFAULTS, model: model.descriptor }, (events) => {
        if (events.some(({ type }) => type === 'finished')) done();
      });
      registry.register(engine, 'engine');
      engine.submit({ ...GREEDY, id: 1, prompt: [1, 2], stopTokens: [], maxTokens: 2000 });
    });
    await collect();
    const early = collected.length;
    await answer;
    await collect();
    console.log(early, collected.join());`;
  expect((await runScript(script)).stdout).toBe('0 engine\n');
});

it('survives a worker that is terminated amid its events', async () => {
  const script = `const { Worker } = await import('node:worker_threads');
    const worker = new Worker(\`import { parentPort } from 'node:worker_threads';
      ${IMPORTS.replace('\n', ' ')}
      const served = await TestEngine.open('parrot');
      served.onEvent = () => { parentPort.postMessage('busy'); for (;;); };
      served.generate({ prompt: [1, 2, 3], stopTokens: [], maxTokens: 2000 });
    \`, { eval: true });
    await new Promise((busy, fail) => worker.once('message', busy).once('error', fail));
    await worker.terminate();
    console.log('alive');`;
  expect((await runScript(script)).stdout).toBe('alive\n');
});

it('delivers all events when JavaScript was busy meanwhile', async () => {
  const script = `const served = await TestEngine.open('parrot');
    const answer = served.generate({ prompt: [1, 2, 3], stopTokens: [], maxTokens: 60 });
    const until = Date.now() + 300;
    while (Date.now() < until);
    console.log((await answer).tokens.length);`;
  expect((await runScript(script)).stdout).toBe('60\n');
});

it('makes what onEvents throws an uncaught exception, and goes on', async () => {
  const script = `const thrown = [];
    process.on('uncaughtException', ({ message }) => thrown.push(message));
    const model = await fixtureModel('qwen3');
    await new Promise((ended) => {
      const engine = createEngine({ ...DEFAULTS, model: model.descriptor }, (events) => {
        if (events.some(({ type }) => type === 'finished')) ended(engine.close());
        throw new Error(events.map(({ type }) => type).join());
      });
      engine.submit({ ...GREEDY, id: 1, prompt: [1, 2], stopTokens: [], maxTokens: 2 });
    });
    console.log(thrown.join());`;
  expect((await runScript(script)).stdout).toBe('accepted,started,token,token,finished\n');
});
