import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import {
  ChatBody,
  CompletionBody,
  DetokenizeBody,
  TokenizeChatBody,
  TokenizeTextBody,
} from '../../../server/openai/schemas.ts';
import type { Serving } from '../../../server/openai/serving.ts';
import { buildServingApp } from '../../../server/openai/serving-app.ts';
import { BUT, UNSUPPORTED } from '../../../server/openai/unsupported.ts';

const readme = readFileSync(new URL('../../../server/README.md', import.meta.url), 'utf8');

/** Cells of the rows that begin with a name in backticks, of the table whose head begins with `head`. */
function rowsOf(head: string): string[][] {
  const from = readme.indexOf(`\n| ${head} |`);
  const [table = ''] = readme.slice(from + 1).split('\n\n');
  return table
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .map((line) =>
      line
        .split('|')
        .slice(1, -1)
        .map((cell) => cell.trim()),
    );
}

const namesIn = (cell: string) => [...cell.matchAll(/`([^`]+)`/g)].map(([, name = '']) => name);

const ENDPOINTS = [
  { endpoint: 'completions', shapes: [CompletionBody.shape], refused: UNSUPPORTED.completion },
  { endpoint: 'chat', shapes: [ChatBody.shape], refused: UNSUPPORTED.chat },
  {
    endpoint: 'tokenize',
    shapes: [TokenizeChatBody.shape, TokenizeTextBody.shape],
    refused: UNSUPPORTED.tokenize,
  },
  { endpoint: 'detokenize', shapes: [DetokenizeBody.shape], refused: {} },
];

describe.each(ENDPOINTS)(
  'the table of fields in server/README.md, $endpoint',
  ({ endpoint, shapes, refused }) => {
    const column = 1 + ENDPOINTS.findIndex((other) => other.endpoint === endpoint);
    const written = rowsOf('request field').flatMap((cells) =>
      namesIn(cells[0] ?? '').map((name) => ({ name, kind: cells[column] ?? '' })),
    );
    const of = (kind: string) => written.filter((row) => row.kind === kind).map(({ name }) => name);
    const known = shapes.flatMap((shape) => Object.keys(shape));

    it('has each field once', () => {
      expect(new Set(written.map(({ name }) => name)).size).toBe(written.length);
    });

    it('has what is served', () => {
      const served = new Set(known.filter((name) => !(name in refused)));
      expect(of('served').sort()).toEqual([...served].sort());
    });

    it('has what is refused', () => {
      expect(of('refused').sort()).toEqual(Object.keys(refused).sort());
    });

    it('calls nothing ignored that is looked at', () => {
      expect(of('ignored').filter((name) => known.includes(name) || name in refused)).toEqual([]);
    });

    it('has no other kinds', () => {
      expect(written.filter(({ kind }) => !['served', 'refused', 'ignored', ''].includes(kind))).toEqual([]);
    });
  },
);

/** Of fastify's picture of them, a tree of parts of paths; before a wildcard it leaves the slash out. */
function routesIn(tree: string): string[] {
  const parents: string[] = [];
  return tree.split('\n').flatMap((line) => {
    const [, branch = '', part = '', methods] = /^(.*── )(\S+)(?: \(([A-Z, ]+)\))?/.exec(line) ?? [];
    const depth = branch.length / 4;
    parents.splice(Math.max(depth - 1, 0), parents.length, part);
    const path = parents.join('').replace(/(?<!\/)\*$/, '/*');
    return methods === undefined ? [] : methods.split(', ').map((method) => `${method} ${path}`);
  });
}

it('the table of fields in server/README.md has the values that are taken all the same', () => {
  const written = rowsOf('request field').flatMap(([names = '']) =>
    [...names.matchAll(/`(\w+)` \(but ([^)]+)\)/g)].map(([, name, but]) => [name, but]),
  );
  expect(Object.fromEntries(written)).toEqual(BUT);
});

describe('the table of routes in server/README.md', () => {
  const app = buildServingApp({} as Serving);
  const [served, absent] = ['served', '404'].map((kind) =>
    rowsOf('route').flatMap(([names = '', of]) => (of === kind ? namesIn(names) : [])),
  );

  it('has those that there are', () => {
    const there = routesIn(app.printRoutes({ commonPrefix: false }));
    expect(served?.toSorted()).toEqual(there.sort());
  });

  it('calls none absent that is there', () => {
    const there = absent?.filter((route) => {
      const [method = '', url = ''] = route.split(' ');
      return app.hasRoute({ method: method as 'GET', url });
    });
    expect(there).toEqual([]);
  });
});
