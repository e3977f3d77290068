import { execFile } from 'node:child_process';
import { resolve } from 'node:path';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';

const ROOT = resolve(import.meta.dirname, '../..');
const execute = promisify(execFile);

/** Runs a script with the helpers of support.ts in a process of its own. */
function runScript(script: string, env: Record<string, string> = {}): Promise<{ stdout: string }> {
  const source = `import { TestEngine } from './test/native/support.ts';\n${script}`;
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

it('survives the collection of engines that were never closed', async () => {
  const script = `for (let i = 0; i < 20; i++) {
      const served = await TestEngine.open('qwen3');
      await served.generate({ prompt: [1, 2, 3], maxTokens: 2 });
    }
    for (let i = 0; i < 5; i++) { globalThis.gc(); await new Promise(setImmediate); }
    console.log('ended');`;
  expect((await runScript(script)).stdout).toBe('ended\n');
});

it('delivers all events when JavaScript was busy meanwhile', async () => {
  const script = `const served = await TestEngine.open('parrot');
    const answer = served.generate({ prompt: [1, 2, 3], stopTokens: [], maxTokens: 60 });
    const until = Date.now() + 300;
    while (Date.now() < until);
    console.log((await answer).tokens.length);`;
  expect((await runScript(script)).stdout).toBe('60\n');
});
