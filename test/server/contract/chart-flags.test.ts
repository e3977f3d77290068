import { readdirSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { FLAGS as OPERATOR_FLAGS } from '../../../operator/config.ts';
import { FLAGS as SERVER_FLAGS } from '../../../server/config.ts';
import { environmentName, type Flags } from '../../../server/contract/flags.ts';

const CHARTS = resolve(import.meta.dirname, '../../../charts');

interface Chart {
  chart: string;
  program: string;
  flags: Flags;
  /** Flags that no single value feeds: a fact about the pod, or put together of several. */
  computed: string[];
  /** Values whose default is meant to be another than the flag's: pods in a pool, with an operator. */
  otherDefaults: Record<string, string>;
}

const PROGRAMS: Chart[] = [
  {
    chart: 'lorikeet',
    program: 'uninstall',
    flags: OPERATOR_FLAGS,
    computed: [],
    otherDefaults: {},
  },
  {
    chart: 'lorikeet',
    program: 'operator',
    flags: OPERATOR_FLAGS,
    computed: [
      'push-host',
      'push-tls-cert-file',
      'push-tls-key-file',
      'push-ca-file',
      'push-url',
      'metrics-host',
      'spool-dir',
      'leader-namespace',
      'leader-name',
      'identity',
      'advertise-host',
    ],
    otherDefaults: {},
  },
  {
    chart: 'lorikeet-server',
    program: 'server',
    flags: SERVER_FLAGS,
    computed: [
      'model',
      'host',
      'admin-host',
      'admin-token-file',
      'admin-tls-cert-file',
      'admin-tls-key-file',
      'relay-ca-file',
      'admin-client-ca-file',
      'engine-url',
      'engine-dir',
    ],
    otherDefaults: { 'ready-when': 'seeded', 'shutdown-timeout': '60' },
  },
];

/** How the engine beside the server is started, which is a program of another project. */
const OF_OTHERS = '_attached.tpl';
/** A pod that logs nothing helps nobody, so charts do not offer it. */
const NOT_IN_CHARTS = ['silent'];

interface Schema {
  enum?: string[];
  properties?: Record<string, Schema>;
}

describe.each(PROGRAMS)(
  '$program in the chart $chart',
  ({ chart, program, flags, computed, otherDefaults }) => {
    const templates = readTemplates(chart, program);
    const values: unknown = parse(readFileSync(resolve(CHARTS, chart, 'values.yaml'), 'utf8'));
    const schema = JSON.parse(readFileSync(resolve(CHARTS, chart, 'values.schema.json'), 'utf8')) as Schema;
    const args = argumentsIn(templates);
    const fed = args.flatMap(({ flag, path }) => (path === null ? [] : [{ flag, path }]));

    it('sets only flags of its program, each once', () => {
      const names = args.map(({ flag }) => flag);
      expect(names.filter((name) => !(name in flags))).toEqual([]);
      expect(new Set(names).size).toBe(names.length);
      const mentioned = [...templates.matchAll(/(?<![\w-])--([a-z][a-z-]*)/g)].map(([, name]) => name);
      expect(mentioned).toEqual(names);
    });

    it('sets only variables of its program', () => {
      const known = Object.keys(flags).map(environmentName);
      const set = templates.match(/\bLORIKEET_\w+/g) ?? [];
      expect(set.filter((name) => !known.includes(name))).toEqual([]);
    });

    it('feeds each flag from one value, but for those that are computed', () => {
      const others = args.filter(({ path }) => path === null).map(({ flag }) => flag);
      expect(others).toEqual(computed);
    });

    it("gives these values the flags' defaults", () => {
      const defaults = fed.map(({ flag, path }) => [flag, `${at(values, path)}`]);
      const wanted = fed.map(({ flag }) => [flag, otherDefaults[flag] ?? flags[flag]?.default ?? '']);
      expect(defaults).toEqual(wanted);
    });

    it("offers the flags' choices for these values", () => {
      const offered = fed.map(({ flag, path }) => [flag, schemaAt(schema, path).enum?.toSorted() ?? null]);
      const wanted = fed.map(({ flag }) => {
        const value = flags[flag]?.value;
        if (typeof value === 'string' || value === undefined) return [flag, null];
        return [flag, value.filter((choice) => !NOT_IN_CHARTS.includes(choice)).toSorted()];
      });
      expect(offered).toEqual(wanted);
    });
  },
);

/** All templates of objects and their named parts, without comments; of a Job only its own. */
function readTemplates(chart: string, program: string): string {
  const folder = resolve(CHARTS, chart, 'templates');
  return readdirSync(folder)
    .filter((name) => /\.(?:yaml|tpl)$/.test(name) && name !== OF_OTHERS)
    .filter((name) => name.endsWith('-job.yaml') === (program === 'uninstall'))
    .map((name) => readFileSync(resolve(folder, name), 'utf8'))
    .join('\n')
    .replace(/^\s*#.*$|\{\{-?\s*\/\*[\s\S]*?\*\/\s*-?\}\}/gm, '');
}

interface Argument {
  flag: string;
  /** Of the value that the flag has as it is; null: there is no such one. */
  path: string[] | null;
}

/** The items `- --flag=…` of the templates; `with` changes what a dot stands for until its `end`. */
function argumentsIn(templates: string): Argument[] {
  const found: Argument[] = [];
  const scopes: string[] = [];
  for (const line of templates.split('\n')) {
    const [, flag, text = ''] = /^\s*- --([a-z-]+)=(.*)$/.exec(line) ?? [];
    if (flag) found.push({ flag, path: pathOf(text, scopes.at(-1) ?? '', templates) });
    for (const [, keyword, subject = ''] of line.matchAll(/\{\{-?\s*(with|if|range|define|end)\b\s*(\S*)/g)) {
      if (keyword === 'end') scopes.pop();
      else scopes.push(keyword === 'if' ? (scopes.at(-1) ?? '') : subject);
    }
  }
  return found;
}

/** Of `{{ .Values.a.b }}`, `{{ .b }}` and `{{ . }}` in their scope, or of an include that ends with one of these. */
function pathOf(text: string, scope: string, templates: string): string[] | null {
  const [, part] = /^\{\{ include ("[\w.-]+") \$ \}\}$/.exec(text) ?? [];
  if (part) {
    const body = templates.split('{{- define ').find((definition) => definition.startsWith(`${part} `));
    const [, last] = /^\{\{- (\.Values\.\S+) \}\}\n\{\{- end \}\}$/m.exec(body ?? '') ?? [];
    return last ? pathOf(`{{ ${last} }}`, '', templates) : null;
  }
  const [, expression] = /^\{\{ (\.[\w.]*) \}\}$/.exec(text) ?? [];
  if (expression === undefined) return null;
  const full = expression.startsWith('.Values.')
    ? expression
    : `${scope}${expression === '.' ? '' : expression}`;
  if (!full.startsWith('.Values.')) return null;
  return full.slice('.Values.'.length).split('.');
}

function at(values: unknown, path: string[]): unknown {
  return path.reduce<unknown>((node, key) => (node as Record<string, unknown> | undefined)?.[key], values);
}

function schemaAt(schema: Schema, path: string[]): Schema {
  return path.reduce<Schema>((node, key) => node.properties?.[key] ?? {}, schema);
}
