/**
 * Plants bugs into the CUDA backend, one at a time, and says which check catches each: the steps on the emulated device, or
 * the same under the thread sanitizer. `node test/native/cuda/mutate.ts [NAME…]` exits 1 where one survives.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

const ROOT = resolve(import.meta.dirname, '../../..');
const CUDA = 'native/executor/cuda';

interface Mutation {
  name: string;
  file: string;
  from: string;
  to: string;
  /** Which of several places, from 0. */
  which?: number;
}

const KERNELS = 'device/kernels';
const MUTATIONS: Mutation[] = [
  {
    name: 'silu_mul does not wait for the grid before it',
    file: `${KERNELS}/silu.cuh`,
    from: '  grid_wait();\n',
    to: '',
  },
  {
    name: 'linear reads x before the grid that writes it has ended',
    file: `${KERNELS}/linear.cuh`,
    from: 'if (waits) grid_wait(), waits = false;',
    to: 'waits = false;',
  },
  {
    name: 'linear joins sums without a barrier',
    file: `${KERNELS}/linear.cuh`,
    from: '  __syncthreads();\n',
    to: '',
    which: 0,
  },
  {
    name: 'linear reads ranks that the adapter does not have',
    file: `${KERNELS}/linear.cuh`,
    from: 'outs = min(static_cast<int>(kPageRanks), adapted.rank - job.page * static_cast<int>(kPageRanks));',
    to: 'outs = adapted.rank > job.page * 16 ? 16 : 0;',
  },
  {
    name: 'a grid of jobs with nothing to do does not wait',
    file: `${KERNELS}/linear.cuh`,
    from: 'if (outs <= 0) return grid_wait();',
    to: 'if (outs <= 0) return;',
  },
  {
    name: 'the order of sums follows the number of rows',
    file: `${KERNELS}/linear.cuh`,
    from: 'for (int i = 1; i < kWarps; ++i) sum += shared[i * kTile + at];',
    to: 'for (int i = 1; i < kWarps; ++i) sum += shared[(p.rows > 8 ? kWarps - i : i) * kTile + at];',
  },
  {
    name: 'the scale of the request is left out',
    file: `${KERNELS}/linear.cuh`,
    from: 'sum * (scale * p.shrink.scales[row])',
    to: 'sum * scale',
  },
  {
    name: 'linear_wide adds classes in another order than linear',
    file: `${KERNELS}/wide.cuh`,
    from: 'total[a][b][e] = current == 0 ? sums[a][b][e] : total[a][b][e] + sums[a][b][e];\n            sums[a][b][e] = 0;',
    to: 'total[a][b][e] = current == 0 ? sums[a][b][e] : total[a][b][e] + sums[a][b][e];\n            if (current % 2) sums[a][b][e] = 0;',
  },
  {
    name: 'linear_wide reads a stage before its copies have landed',
    file: `${KERNELS}/wide.cuh`,
    from: 'copy_async_wait<kWideStages - 2>();',
    to: 'copy_async_wait<kWideStages - 1>();',
  },
  {
    name: 'expand reads a page too many',
    file: `${KERNELS}/lora.cuh`,
    from: 'page * kPageRanks < rank; ++page',
    to: 'page * kPageRanks <= rank; ++page',
  },
  {
    name: 'attend reads parts without a barrier',
    file: `${KERNELS}/attend.cuh`,
    from: '  __syncthreads();\n',
    to: '',
    which: 0,
  },
  {
    name: 'attend counts a split before it is complete',
    file: `${KERNELS}/attend.cuh`,
    from: '  __syncthreads();\n',
    to: '',
    which: 1,
  },
  {
    name: 'attend reads who is last without a barrier',
    file: `${KERNELS}/attend.cuh`,
    from: '  __syncthreads();\n',
    to: '',
    which: 2,
  },
  {
    name: 'attend multiplies what lies past the context',
    file: `${KERNELS}/attend.cuh`,
    from: 'if (left < 4) {',
    to: 'if (false) {',
  },
  {
    name: 'attend sees one token too many',
    file: `${KERNELS}/attend.cuh`,
    from: 'position + token + 1, begin',
    to: 'position + token + 2, begin',
  },
  {
    name: 'all rows of a tile see as far as its last',
    file: `${KERNELS}/attend.cuh`,
    from: 'end_of[h] = r.is_there ? r.end() : end;',
    to: 'end_of[h] = end;',
  },
  {
    name: 'a tile goes on in the next sequence',
    file: `${KERNELS}/attend.cuh`,
    from: 'c.table_of[row] == c.table_of[row - 1] && ',
    to: '',
  },
  {
    name: 'the splits are joined from the wrong head',
    file: `${KERNELS}/attend.cuh`,
    from: 'const volatile float* from = partial_of(p, row + r.token, head0 + r.head, 0);',
    to: 'const volatile float* from = partial_of(p, row + r.token, head0, 0);',
  },
  {
    name: 'a lane stays away from a shuffle',
    file: `${KERNELS}/attend.cuh`,
    from: '    total[h] += __shfl_xor_sync(0xffffffffu, total[h], 2);',
    to: '    if (lane != 5) total[h] += __shfl_xor_sync(0xffffffffu, total[h], 2);',
  },
  {
    name: 'padding rows write keys and values',
    file: `${KERNELS}/qkv.cuh`,
    from: '  if (c.table_of[row] < 0) return;\n',
    to: '',
  },
  {
    name: 'rope turns the other way',
    file: `${KERNELS}/qkv.cuh`,
    from: 'const float turned = a * cos - b * sin;',
    to: 'const float turned = a * cos + b * sin;',
  },
  {
    name: 'the norm sums without a barrier',
    file: `${KERNELS}/reduce.cuh`,
    from: '  __syncthreads();\n',
    to: '',
    which: 0,
  },
  {
    name: "the embedding's A is read at the row, not at the token",
    file: `${KERNELS}/norm.cuh`,
    from: 'p.a_cols + token])',
    to: 'p.a_cols + row])',
  },
  {
    name: 'the head has no adapters',
    file: 'device/step.h',
    from: 'if (jobs > 0) {',
    to: 'if (false) {',
  },
  {
    name: 'a graph keeps the jobs of the step that it was captured in',
    file: 'device/inputs.h',
    from: 'shape.jobs[g] = jobs_bucket(per_member) * members_of(group);',
    to: 'shape.jobs[g] = std::min(1, per_member) * members_of(group);',
  },
  {
    name: 'a revision is ready before its copies have landed',
    file: 'cuda_executor.cc',
    from: 'check(api_.finish(device_.get(), &failure), failure);\n  return staged;',
    to: 'return staged;',
  },
  {
    name: 'pinned memory is used again before its copy has landed',
    file: 'device/uploads.h',
    from: '    landed_[next_].wait();\n',
    to: '',
  },
  {
    name: 'ties go to the higher token',
    file: `${KERNELS}/choose.cuh`,
    from: '(0xffffffffu - static_cast<uint32_t>(id));\n}\n__device__ __forceinline__ int id_of',
    to: 'static_cast<uint32_t>(id);\n}\n__device__ __forceinline__ int id_of',
  },
];

const work = mkdtempSync(join(tmpdir(), 'lorikeet-mutate-'));
process.once('exit', () => rmSync(work, { recursive: true, force: true }));
for (const folder of ['native', 'test/native']) {
  cpSync(join(ROOT, folder), join(work, folder), { recursive: true });
}
const CHECKS = [
  { name: 'steps', flags: '', args: ['--stop', '--seed', '3'] },
  { name: 'thread sanitizer', flags: 'thread', args: ['--quick', '--stop', '--seed', '3'] },
];
const wanted = process.argv.slice(2);
let survivors = 0;
for (const mutation of MUTATIONS) {
  if (wanted.length > 0 && !wanted.some((word) => mutation.name.includes(word))) continue;
  const path = join(work, CUDA, mutation.file);
  const source = readFileSync(path, 'utf8');
  writeFileSync(path, planted(source, mutation));
  const caught = CHECKS.find((check) => !passes(check))?.name;
  writeFileSync(path, source);
  survivors += caught === undefined ? 1 : 0;
  process.stdout.write(`${mutation.name}: ${caught === undefined ? 'SURVIVES' : `caught by ${caught}`}\n`);
}
process.exitCode = survivors === 0 ? 0 : 1;

function planted(source: string, { name, from, to, which = 0 }: Mutation): string {
  const parts = source.split(from);
  if (parts.length < which + 2) throw new Error(`${name}: nothing to change`);
  return [parts.slice(0, which + 1).join(from), parts.slice(which + 1).join(from)].join(to);
}

function passes({ name, flags, args }: (typeof CHECKS)[number]): boolean {
  const build = join(work, `build-${name.replace(' ', '-')}`);
  const options = [
    '-DLORIKEET_TESTS=ON',
    '-DCMAKE_BUILD_TYPE=RelWithDebInfo',
    `-DLORIKEET_SANITIZE=${flags}`,
  ];
  execFileSync('cmake', ['-S', join(work, CUDA), '-B', build, ...options], { stdio: 'ignore' });
  execFileSync('cmake', ['--build', build, '--target', 'step_test', '--parallel', '2'], { stdio: 'ignore' });
  const ended = spawnSync('setarch', ['-R', join(build, 'step_test'), ...args], {
    env: { ...process.env, TSAN_OPTIONS: 'halt_on_error=1:history_size=0' },
    stdio: 'ignore',
    timeout: 1_200_000,
  });
  return ended.status === 0;
}
