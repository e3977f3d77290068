import { execFile } from 'node:child_process';
import { resolve } from 'node:path';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';

const ROOT = resolve(import.meta.dirname, '../../..');
const SANITIZERS = '-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g1';
/** Instruction sets share tables; each table has the name of the first set that has it. */
const SIMD_TABLES = [
  'avx2 float32',
  'avx2 bfloat16',
  'avx512 float32',
  'avx512 bfloat16',
  'avx512bf16 bfloat16',
  'amx bfloat16',
];

const TABLE = / lorikeet::k(?:Avx|Amx)\w+$/m;

const OUTPUT_BYTES_MAX = 16 << 20;
const SHOWN_CHARS_MAX = 4000;

const execute = promisify(execFile);

/** Returns the standard output; an exit code other than 0 throws with the start of all output. */
async function run(command: string, args: string[]): Promise<string> {
  try {
    return (await execute(command, args, { maxBuffer: OUTPUT_BYTES_MAX })).stdout;
  } catch (cause) {
    const { stdout = '', stderr = '' } = cause as { stdout?: string; stderr?: string };
    throw new Error(`${command} failed:\n${`${stderr}${stdout}`.slice(0, SHOWN_CHARS_MAX)}`, { cause });
  }
}

/** Returns the build folder. */
async function buildConformance(buildDir: string, flags: string): Promise<string> {
  const build = resolve(ROOT, buildDir);
  const configure = ['-S', resolve(ROOT, 'native/kernels'), '-B', build, '-DLORIKEET_TESTS=ON'];
  await run('cmake', [...configure, '-DCMAKE_BUILD_TYPE=Release', `-DCMAKE_CXX_FLAGS=${flags}`]);
  await run('cmake', ['--build', build, '--target', 'kernel_conformance', '--parallel', '2']);
  return build;
}

/** Returns the lines that the conformance program printed. */
async function runConformance(build: string): Promise<string[]> {
  return (await run(resolve(build, 'kernel_conformance'), [])).trimEnd().split('\n');
}

function expectConformance(lines: string[]): void {
  for (const always of ['pack', 'reference float32']) {
    expect(lines).toContainEqual(
      expect.stringMatching(new RegExp(`^${always}: [1-9]\\d* passed, 0 failed$`)),
    );
  }
  for (const table of SIMD_TABLES) {
    const outcome = new RegExp(`^${table}: ([1-9]\\d* passed, 0 failed|skipped: .+)$`);
    expect(lines).toContainEqual(expect.stringMatching(outcome));
  }
  const skipped = lines.filter((line) => line.includes(': skipped: ')).length;
  expect(lines.at(-1)).toMatch(new RegExp(`^[1-9]\\d* passed, 0 failed, ${skipped} skipped$`));
}

/** An object file of an instruction set shares its tables, which are data, and no code: the linker could keep its copy of a function for all. */
async function expectApart(library: string): Promise<void> {
  const objects = (await run('nm', ['--defined-only', '--extern-only', '--demangle', library])).split('\n\n');
  for (const object of objects.filter((listing) => TABLE.test(listing))) {
    const symbols = object.split('\n').filter((line) => /^[0-9a-f]+ /.test(line));
    expect(symbols.filter((symbol) => !/^[0-9a-f]+ [DRV] /.test(symbol))).toEqual([]);
  }
}

// Both compile C++ first, which takes far more than a second.
it('holds every table to ops.h, and keeps them apart', { timeout: 600_000 }, async () => {
  const build = await buildConformance('build/kernels-test', '');
  expectConformance(await runConformance(build));
  await expectApart(resolve(build, 'liblorikeet_kernels.a'));
});

it('reads and writes nothing beyond its shapes', { timeout: 900_000 }, async () => {
  expectConformance(await runConformance(await buildConformance('build/kernels-asan', SANITIZERS)));
});
