import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { parseSync } from 'oxc-parser';
import { describe, expect, it } from 'vitest';

const ROOT = resolve(import.meta.dirname, '..');

/** Folder → the folders that its files may import from (besides itself). */
const ALLOWED: Record<string, string[]> = {
  operator: [
    'operator/adapter',
    'operator/placement',
    'operator/pool',
    'operator/push',
    'operator/source',
    'operator/spool',
    'operator/pods',
    'operator/kube',
    'operator/api',
    'operator/telemetry',
    'server/contract',
    'server/transfer',
  ],
  'operator/cli': [
    'operator/pods',
    'operator/kube',
    'operator/api',
    'server/transfer',
    'server/telemetry',
    'server/contract',
  ],
  'operator/push': [
    'operator/adapter',
    'operator/spool',
    'operator/pods',
    'operator/kube',
    'operator/api',
    'server/transfer',
    'server/contract',
  ],
  'operator/adapter': [
    'operator/placement',
    'operator/source',
    'operator/spool',
    'operator/pods',
    'operator/kube',
    'operator/api',
    'server/contract',
    'server/transfer',
  ],
  'operator/pool': [
    'operator/placement',
    'operator/pods',
    'operator/kube',
    'operator/api',
    'server/transfer',
    'server/contract',
  ],
  'operator/placement': ['operator/pods', 'operator/api', 'server/contract'],
  'operator/source': [
    'operator/spool',
    'operator/kube',
    'operator/api',
    'server/transfer',
    'server/contract',
  ],
  'operator/spool': ['operator/kube', 'server/contract'],
  'operator/pods': ['operator/kube', 'operator/api', 'server/transfer', 'server/contract'],
  'operator/api': ['operator/kube', 'server/contract'],
  'operator/telemetry': [
    'server/contract',
    'server/transfer',
    'operator/pods',
    'operator/kube',
    'operator/api',
  ],
  'operator/kube': [],
  server: [
    'server/sidecar',
    'server/vllm',
    'server/openai',
    'server/admin',
    'server/adapters',
    'server/engine',
    'server/model',
    'server/text',
    'server/telemetry',
    'server/transfer',
    'server/contract',
  ],
  'server/openai': [
    'server/adapters',
    'server/engine',
    'server/text',
    'server/telemetry',
    'server/transfer',
    'server/contract',
  ],
  'server/vllm': ['server/openai', 'server/adapters', 'server/engine', 'server/transfer', 'server/contract'],
  'server/sidecar': [
    'server/openai',
    'server/engine',
    'server/telemetry',
    'server/transfer',
    'server/contract',
  ],
  'server/bridge': ['server/vllm', 'server/openai', 'server/transfer', 'server/contract'],
  'server/conformance': ['server/contract'],
  'server/admin': ['server/adapters', 'server/transfer', 'server/contract'],
  'server/adapters': ['server/engine', 'server/transfer', 'server/contract'],
  'server/engine': ['server/transfer', 'server/contract', 'native'],
  'server/model': ['server/contract', 'native'],
  'server/telemetry': [],
  'server/text': [],
  'server/transfer': ['server/contract'],
  'server/contract': [],
  native: [],
};

/** What a file of these may take from another folder: one file's types, never code. */
const TYPES_ONLY: Record<string, { folder: string; file: string }> = {
  'server/model': { folder: 'native', file: 'native/types.ts' },
  'server/adapters': { folder: 'server/engine', file: 'server/engine/port.ts' },
  'server/openai': { folder: 'server/engine', file: 'server/engine/port.ts' },
  'server/vllm': { folder: 'server/engine', file: 'server/engine/port.ts' },
  'server/sidecar': { folder: 'server/engine', file: 'server/engine/loader.ts' },
};

function sourcesUnder(folder: string, extension: RegExp): string[] {
  return readdirSync(join(ROOT, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && extension.test(entry.name))
    .map((entry) => relative(ROOT, join(entry.parentPath, entry.name)));
}

interface Import {
  from: string;
  to: string;
  typeOnly: boolean;
}

function importsOf(file: string): Import[] {
  const text = readFileSync(join(ROOT, file), 'utf8');
  const { module, errors } = parseSync(file, text);
  if (errors.length > 0) throw new Error(`${file}: ${errors[0]?.message}`);
  const found = [
    ...module.staticImports.map(({ moduleRequest, entries }) => ({
      specifier: moduleRequest.value,
      typeOnly: entries.length > 0 && entries.every(({ isType }) => isType),
    })),
    ...module.staticExports.flatMap(({ entries }) =>
      entries.flatMap(({ moduleRequest, isType }) =>
        moduleRequest ? [{ specifier: moduleRequest.value, typeOnly: isType }] : [],
      ),
    ),
    ...module.dynamicImports.map(({ moduleRequest: { start, end } }) => ({
      specifier: text.slice(start + 1, end - 1),
      typeOnly: false,
    })),
  ];
  return found
    .filter(({ specifier }) => specifier.startsWith('.'))
    .map(({ specifier, typeOnly }) => ({
      from: file,
      to: relative(ROOT, resolve(ROOT, dirname(file), specifier)),
      typeOnly,
    }));
}

/** The longest key of ALLOWED that holds the file. */
function areaOf(file: string): string {
  const areas = Object.keys(ALLOWED).filter((area) => file.startsWith(`${area}/`));
  const area = areas.sort((a, b) => b.length - a.length)[0];
  if (area === undefined) throw new Error(`${file} is in no folder of the house plan`);
  return area;
}

const imports = ['operator', 'server', 'native']
  .flatMap((folder) => sourcesUnder(folder, /\.ts$/))
  .flatMap(importsOf);

function cycleFrom(start: string, edges: Map<string, string[]>): string[] | null {
  const path: string[] = [];
  const done = new Set<string>();
  const visit = (file: string): string[] | null => {
    if (path.includes(file)) return [...path.slice(path.indexOf(file)), file];
    if (done.has(file)) return null;
    path.push(file);
    for (const next of edges.get(file) ?? []) {
      const cycle = visit(next);
      if (cycle) return cycle;
    }
    path.pop();
    done.add(file);
    return null;
  };
  return visit(start);
}

describe('imports', () => {
  it('follow the arrows of the house plan', () => {
    const wrong = imports.filter(({ from, to }) => {
      const area = areaOf(from);
      return areaOf(to) !== area && !ALLOWED[area]?.includes(areaOf(to));
    });
    expect(wrong.map(({ from, to }) => `${from} → ${to}`)).toEqual([]);
  });

  it('use every arrow of the plan', () => {
    const used = new Set(imports.map(({ from, to }) => `${areaOf(from)} → ${areaOf(to)}`));
    const idle = Object.entries(ALLOWED).flatMap(([area, others]) =>
      others.map((other) => `${area} → ${other}`).filter((arrow) => !used.has(arrow)),
    );
    expect(idle).toEqual([]);
  });

  it('reach the native code through server/engine only, and engines through their port', () => {
    const wrong = imports.filter(({ from, to, typeOnly }) => {
      const allowed = TYPES_ONLY[areaOf(from)];
      return areaOf(to) === allowed?.folder && !(typeOnly && to === allowed.file);
    });
    expect(wrong.map(({ from, to }) => `${from} → ${to}`)).toEqual([]);
  });

  it('have no cycle', () => {
    const edges = new Map<string, string[]>();
    for (const { from, to } of imports) edges.set(from, [...(edges.get(from) ?? []), to]);
    const cycles = [...edges.keys()].map((file) => cycleFrom(file, edges)).filter((cycle) => cycle !== null);
    expect(cycles.map((cycle) => cycle.join(' → '))).toEqual([]);
  });

  it('keep C++ in the order addon → engine → kernels, and Node out of engine and kernels', () => {
    const forbidden: Record<string, RegExp> = {
      'native/kernels': /#include\s+["<](?:.*engine\/|.*addon\/|napi|node_api|uv\.h|cuda)/,
      'native/executor': /#include\s+["<](?:.*engine\/|.*addon\/|napi|node_api|uv\.h)/,
      'native/engine': /#include\s+["<](?:.*addon\/|executor\/(?:cpu|cuda)|napi|node_api|uv\.h|cuda)/,
    };
    const wrong = Object.entries(forbidden).flatMap(([folder, pattern]) =>
      sourcesUnder(folder, /\.(?:h|cc)$/).filter((file) =>
        pattern.test(readFileSync(join(ROOT, file), 'utf8')),
      ),
    );
    expect(wrong).toEqual([]);
  });
});
