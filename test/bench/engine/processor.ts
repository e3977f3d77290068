import { readFileSync } from 'node:fs';
import { cpus } from 'node:os';

export interface Processor {
  model: string;
  /** Family, model and stepping: a virtual machine's name often says no more than the maker. */
  signature: string;
  processors: number;
  flags: string[];
}

/** The instruction sets that decide which kernels run. */
const FLAGS = ['avx2', 'fma', 'avx512f', 'avx512_bf16', 'avx512_vnni', 'amx_tile', 'amx_bf16'];

export function readProcessor(): Processor {
  const all = cpus();
  const fields = cpuInfo();
  const present = new Set(fields.get('flags')?.split(' '));
  return {
    model: (fields.get('model name') ?? all[0]?.model ?? process.arch).replace(/\s+/g, ' ').trim(),
    signature: ['cpu family', 'model', 'stepping'].map((key) => fields.get(key) ?? '?').join('/'),
    processors: all.length,
    flags: FLAGS.filter((flag) => present.has(flag)),
  };
}

export function processorSlug({ model, signature, processors }: Processor): string {
  const text = `${model}-${signature}-${processors}-cpus`.toLowerCase();
  return text
    .replace(/\((r|tm)\)/g, '')
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-|-$/g, '');
}

/** The first processor's lines of /proc/cpuinfo; nothing where there is no such file. */
function cpuInfo(): Map<string, string> {
  if (process.platform !== 'linux') return new Map();
  const [first = ''] = readFileSync('/proc/cpuinfo', 'utf8').split('\n\n');
  return new Map(
    first.split('\n').map((line) => {
      const [key = '', value = ''] = line.split(/\s*:\s*/, 2);
      return [key.trim(), value];
    }),
  );
}
