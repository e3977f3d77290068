import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { ensureBuilt, hasAll } from './built.mjs';
import { cacheDir, keyOf } from './files.mjs';
import { run } from './run.mjs';
import { ensureVllm, findVllm } from './vllm.mjs';

/** Without what it asks for: most of that is for GPUs, and the rest is there, or comes with vLLM. */
const PACKAGES = [
  'sglang==0.5.23',
  'gguf==0.19.0',
  'ipython==9.18.1',
  'orjson==3.13.0',
  'pandas==3.1.1',
  'soundfile==0.14.0',
  'torchaudio==2.11.1',
  'traitlets==5.16.1',
];
const COMMAND = 'bin/python';

/** A Python environment with SGLang, on top of vLLM's, which has PyTorch. */
export async function ensureSglang() {
  const below = await ensureVllm();
  await ensureBuilt(environment(below), [COMMAND], 'installing SGLang', '1 min', (temporary) =>
    install(below, temporary),
  );
}

/** Its folder; null where it is missing. */
export async function findSglang() {
  const below = await findVllm();
  if (below === null) return null;
  const folder = environment(below);
  return hasAll(folder, [COMMAND]) ? folder : null;
}

async function install(below, folder) {
  await run(join(below, 'bin/python'), ['-m', 'venv', folder]);
  writeFileSync(join(packagesOf(folder), 'below.pth'), packagesOf(below));
  const pip = ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--no-deps'];
  await run(join(folder, 'bin/python'), [...pip, ...PACKAGES]);
}

function packagesOf(folder) {
  const lib = join(folder, 'lib');
  const python = readdirSync(lib).find((name) => name.startsWith('python3')) ?? '';
  return join(lib, python, 'site-packages');
}

function environment(below) {
  const key = keyOf(readFileSync(import.meta.filename), basename(below));
  return join(cacheDir(), 'tools', `sglang-${key}`);
}
