import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { contentsUnder, keyOf, ROOT, withLock } from './files.mjs';
import { run, withProgress } from './run.mjs';
import { ensureCompiler, isOnPath } from './toolchain.mjs';

const NATIVE = join(ROOT, 'native');

/** What is built of the native sources, each in a folder of its own. */
const ADDON = {
  label: 'the native addon',
  source: NATIVE,
  build: join(ROOT, 'build/addon'),
  product: /\.node$/,
};
const SIMT = {
  label: 'the emulated device',
  source: join(NATIVE, 'executor/cuda'),
  build: join(ROOT, 'build/simt'),
  product: /\.so$/,
};

/** Builds the native addon unless it was built from exactly these sources. */
export const ensureAddon = () => ensureBuilt(ADDON);
/** The same for the CUDA backend's library against an emulated device, which tests open. */
export const ensureSimt = () => ensureBuilt(SIMT);

async function ensureBuilt({ label, source, build, product }) {
  const key = sourcesKey();
  const stamp = join(build, 'built-from');
  const isBuilt = () =>
    existsSync(stamp) &&
    readdirSync(build).some((name) => product.test(name)) &&
    readFileSync(stamp, 'utf8') === key;
  if (isBuilt()) return;
  await ensureCompiler();
  await withLock(`${build}.lock`, async () => {
    if (isBuilt()) return;
    await withProgress(`building ${label}`, '1 min', async () => {
      const generator =
        existsSync(join(build, 'CMakeCache.txt')) || !isOnPath('ninja') ? [] : ['-G', 'Ninja'];
      await run('cmake', ['-S', source, '-B', build, ...generator, '-DCMAKE_BUILD_TYPE=Release'], {
        cwd: ROOT,
      });
      await run('cmake', ['--build', build, '--parallel', String(availableJobs())], { cwd: ROOT });
    });
    writeFileSync(stamp, key);
  });
}

function sourcesKey() {
  const isInput = (name) => /(\.(cc|h|inc|cu|cuh|cmake)|CMakeLists\.txt)$/.test(name);
  const headers = readFileSync(join(ROOT, 'node_modules/node-addon-api/package.json'));
  return keyOf(...contentsUnder(NATIVE, isInput), headers, process.arch, process.env.CXX ?? '');
}

function availableJobs() {
  return typeof availableParallelism === 'function' ? availableParallelism() : 2;
}
