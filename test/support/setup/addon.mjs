import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { contentsUnder, keyOf, ROOT, withLock } from './files.mjs';
import { run, withProgress } from './run.mjs';
import { ensureCompiler, isOnPath } from './toolchain.mjs';

const SOURCE = join(ROOT, 'native');
const BUILD = join(ROOT, 'build/addon');
const STAMP = join(BUILD, 'built-from');

/** Builds the native addon unless it was built from exactly these sources. */
export async function ensureAddon() {
  if (isBuilt()) return;
  await ensureCompiler();
  await withLock(join(ROOT, 'build/addon.lock'), async () => {
    if (isBuilt()) return;
    const key = sourcesKey();
    await withProgress('building the native addon', '1 min', async () => {
      const generator =
        existsSync(join(BUILD, 'CMakeCache.txt')) || !isOnPath('ninja') ? [] : ['-G', 'Ninja'];
      await run('cmake', ['-S', SOURCE, '-B', BUILD, ...generator, '-DCMAKE_BUILD_TYPE=Release'], {
        cwd: ROOT,
      });
      await run('cmake', ['--build', BUILD, '--parallel', String(availableJobs())], { cwd: ROOT });
    });
    writeFileSync(STAMP, key);
  });
}

function isBuilt() {
  if (!existsSync(STAMP) || !readdirSync(BUILD).some((name) => name.endsWith('.node'))) return false;
  return readFileSync(STAMP, 'utf8') === sourcesKey();
}

function sourcesKey() {
  const isInput = (name) => /(\.(cc|h|inc|cu|cuh|cmake)|CMakeLists\.txt)$/.test(name);
  const headers = readFileSync(join(ROOT, 'node_modules/node-addon-api/package.json'));
  return keyOf(...contentsUnder(SOURCE, isInput), headers, process.arch, process.env.CXX ?? '');
}

function availableJobs() {
  return typeof availableParallelism === 'function' ? availableParallelism() : 2;
}
