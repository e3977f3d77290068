/**
 * `npm run e2e:cluster`: both charts on a real node, from our Dockerfiles' images. The last line on stdout is
 * `N passed, N failed` with `, N skipped` where there are any. It needs root on Debian; where it cannot run it says why and
 * fails, or with --if-possible counts itself as skipped.
 */
import { spawn } from 'node:child_process';
import { join, resolve } from 'node:path';
import { type Counts, closingLine, countVitest } from '../../support/vitest-report.ts';
import { clearTraces, listTraces, makeRunDir, removeRun } from './traces.ts';

const ROOT = resolve(import.meta.dirname, '../../..');
const SETUP = join(ROOT, 'test/support/setup.mjs');
const VITEST = join(ROOT, 'node_modules/.bin/vitest');
/** A process of ours may leave nothing: network, mounts and processes end with the last program in these. */
const NAMESPACES = ['--net', '--mount', '--pid', '--ipc', '--fork', '--kill-child', '--mount-proc'];
/** The shell is the namespace's first process: it reaps what others leave. */
const FIRST_PROCESS = ['sh', '-c', '"$@"; exit $?', 'sh'];
const SIGNALS = ['SIGINT', 'SIGTERM'] as const;

async function main(args: string[]): Promise<number> {
  const isOptional = args.includes('--if-possible');
  const patterns = args.filter((arg) => arg !== '--if-possible');
  const obstacle = await findObstacle();
  if (obstacle !== null) {
    process.stdout.write(`e2e:cluster cannot run here: ${obstacle}\n`);
    const counts = isOptional ? { passed: 0, failed: 0, skipped: 1 } : { passed: 0, failed: 1, skipped: 0 };
    return close(counts);
  }
  if ((await run(process.execPath, [SETUP, 'node'])) !== 0)
    return close({ passed: 0, failed: 1, skipped: 0 });
  await clearTraces();
  const before = await listTraces();
  const counts = await runSuite(patterns);
  const left = (await listTraces()).filter((trace) => !before.includes(trace));
  for (const trace of left) process.stdout.write(`left behind: ${trace}\n`);
  if (left.length > 0) counts.failed += 1;
  else counts.passed += 1;
  return close(counts);
}

async function findObstacle(): Promise<string | null> {
  if (process.platform !== 'linux') return `it needs Linux, and this is ${process.platform}`;
  if (process.getuid?.() !== 0) return 'it needs root, for containers, mounts and a network';
  if ((await run(process.execPath, [SETUP, 'node-packages'])) !== 0)
    return 'the packages of a node are missing (the lines above say which)';
  if ((await run('unshare', [...NAMESPACES, 'true'])) !== 0) return 'the kernel gives no namespaces';
  return null;
}

async function runSuite(patterns: string[]): Promise<Counts> {
  const dir = await makeRunDir();
  try {
    const env = { ...process.env, TMPDIR: dir };
    return await countVitest((reporters) => {
      const config = ['--config', join(import.meta.dirname, 'vitest.config.ts')];
      const vitest = [process.execPath, VITEST, 'run', ...config, ...reporters, ...patterns];
      return run(
        'setpriv',
        ['--pdeathsig', 'KILL', 'unshare', ...NAMESPACES, ...FIRST_PROCESS, ...vitest],
        env,
      );
    });
  } finally {
    await removeRun(dir);
  }
}

function close(counts: Counts): number {
  process.stdout.write(closingLine(counts));
  return counts.failed === 0 ? 0 : 1;
}

function run(command: string, args: string[], env = process.env): Promise<number> {
  return new Promise((done, reject) => {
    const child = spawn(command, args, { cwd: ROOT, env, stdio: ['ignore', 'inherit', 'inherit'] });
    // What it started ends with it, and we go on to tidy up.
    const stop = () => child.kill('SIGKILL');
    for (const signal of SIGNALS) process.on(signal, stop);
    child.once('error', reject);
    child.once('close', (code) => {
      for (const signal of SIGNALS) process.off(signal, stop);
      done(code ?? 1);
    });
  });
}

process.exitCode = await main(process.argv.slice(2));
