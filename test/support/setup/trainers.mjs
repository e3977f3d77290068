import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ensureBuilt, hasAll } from './built.mjs';
import { cacheDir, keyOf, ROOT } from './files.mjs';
import { run, SetupError, tryRun } from './run.mjs';

const REQUIREMENTS = join(ROOT, 'test/e2e/trainers/requirements.txt');
const PYTHON_MINOR_MIN = 11;
const INTERPRETER = 'bin/python';

/** A Python environment with the trainers that the tests run against a server. */
export async function ensureTrainers() {
  const python = await findPython();
  const folder = environment(python);
  await ensureBuilt(folder, [INTERPRETER], 'installing TRL and PyTorch (6 GB)', '3 min', (temporary) =>
    install(python, temporary),
  );
}

/** Its interpreter; null where it is missing. */
export async function findTrainersPython() {
  const python = await findPython().catch(() => null);
  if (python === null) return null;
  const folder = environment(python);
  return hasAll(folder, [INTERPRETER]) ? join(folder, INTERPRETER) : null;
}

async function install(python, folder) {
  await run(python.command, ['-m', 'venv', folder]);
  const pip = ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '-r', REQUIREMENTS];
  await run(join(folder, INTERPRETER), pip).catch((error) => {
    throw new SetupError(faultsIn(error.message));
  });
}

/** What pip says went wrong, without its progress and its notes. */
function faultsIn(output) {
  const faults = output.split('\n').filter((line) => line.startsWith('ERROR:'));
  return faults.length === 0 ? output : `pip could not install ${REQUIREMENTS}:\n${faults.join('\n')}`;
}

export async function findPython() {
  const print = 'import sys; print(sys.executable, *sys.version_info[:3])';
  const told = (await tryRun('python3', ['-c', print]))?.trim() ?? null;
  const [, command, version, minor] = told?.match(/^(.*) (3 (\d+) \d+)$/) ?? [];
  if (Number(minor) >= PYTHON_MINOR_MIN) return { command, version };
  const found = told === null ? 'there is none' : `it is ${told}`;
  throw new SetupError(`the trainers need Python 3.${PYTHON_MINOR_MIN} or newer as python3, but ${found}`);
}

/** Moves with the renaming of its folder: only its interpreter is ever started. */
function environment({ version }) {
  const key = keyOf(readFileSync(REQUIREMENTS), version, process.platform, process.arch);
  return join(cacheDir(), 'tools', `trainers-${key}`);
}
