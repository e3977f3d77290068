import { readFileSync } from 'node:fs';
import { fastify } from 'fastify';
import { describe, expect, it } from 'vitest';
import type { Serving } from '../../../server/openai/serving.ts';
import { buildServingApp } from '../../../server/openai/serving-app.ts';
import { speakVllm } from '../../../server/vllm/dialect.ts';
import { openApi } from '../../../server/vllm/openapi.ts';
import { bench } from '../adapters/bench.ts';

const readme = readFileSync(new URL('../../../server/README.md', import.meta.url), 'utf8');

/** What a function adds to an app. */
async function routesOf(add: (app: ReturnType<typeof fastify>) => void): Promise<string[]> {
  const app = fastify({ exposeHeadRoutes: false });
  const found: string[] = [];
  app.addHook('onRoute', ({ method, url }) => void found.push(`${method} ${url}`));
  add(app);
  await app.ready();
  return found.sort();
}

const dialect = {
  serving: {} as Serving,
  registry: bench().registry,
  engine: { dtype: 'float32', slots: 1, maxRank: 1 },
  resetPrefixCache: () => undefined,
  isIdle: () => true,
  root: null,
  token: null,
};

it('the table of routes in server/README.md has those of the dialect', async () => {
  const [, cell = ''] = /^\| ([^|]+) \| with `--vllm-api` \|$/m.exec(readme) ?? [];
  const written = [...cell.matchAll(/`((?:GET|POST) [^`]+)`/g)].map(([, route = '']) => route);
  expect(written.sort()).toEqual(await routesOf((app) => speakVllm(app, dialect)));
});

describe('/openapi.json', () => {
  const { paths } = openApi() as { paths: Record<string, object> };
  const described = Object.entries(paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => [method.toUpperCase() as 'GET' | 'POST', path] as const),
  );

  it('has every route of the dialect', async () => {
    const routes = await routesOf((app) => speakVllm(app, dialect));
    expect(described.map(([method, url]) => `${method} ${url}`)).toEqual(expect.arrayContaining(routes));
  });

  it('has only routes that there are', async () => {
    const app = buildServingApp({} as Serving);
    speakVllm(app, dialect);
    await app.ready();
    expect(described.filter(([method, url]) => !app.hasRoute({ method, url }))).toEqual([]);
  });
});
