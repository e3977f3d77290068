import { fastify } from 'fastify';
import { describe, expect, it } from 'vitest';
import { allowOrigins } from '../../../server/openai/cors.ts';

function appFor(...origins: string[]) {
  const app = fastify();
  app.post('/v1/completions', async () => ({}));
  allowOrigins(app, origins);
  return app;
}

const UI = 'http://ui.example';

async function preflight(origins: string[], origin = UI) {
  const { statusCode, headers } = await appFor(...origins).inject({
    method: 'OPTIONS',
    url: '/v1/completions',
    headers: {
      origin,
      'access-control-request-method': 'POST',
      'access-control-request-headers': 'authorization,content-type',
    },
  });
  return { statusCode, headers };
}

async function post(origins: string[], url = '/v1/completions') {
  return (await appFor(...origins).inject({ method: 'POST', url, headers: { origin: UI } })).headers;
}

describe('a page in a browser', () => {
  it.each([
    [['*'], '*'],
    [['http://other.example', UI], UI],
  ])('of an origin that %j has may ask', async (origins, allowed) => {
    expect(await preflight(origins)).toMatchObject({
      statusCode: 204,
      headers: {
        'access-control-allow-origin': allowed,
        'access-control-allow-methods': 'GET, POST',
        'access-control-allow-headers': 'authorization,content-type',
        'access-control-max-age': '600',
      },
    });
    const answered = await post(origins);
    expect(answered['access-control-allow-origin']).toBe(allowed);
    expect(answered['access-control-expose-headers']).toContain('x-lora-revision');
  });

  it('may read refusals too', async () => {
    expect((await post([UI], '/nothing'))['access-control-allow-origin']).toBe(UI);
  });

  it.each([[[]], [['http://other.example']]])('of an origin that %j has not may not', async (origins) => {
    const asked = await preflight(origins);
    expect(asked.statusCode).toBe(404);
    expect(asked.headers).not.toHaveProperty('access-control-allow-origin');
    expect(await post(origins)).not.toHaveProperty('access-control-allow-origin');
  });

  it('is not given what a cache keeps for another origin', async () => {
    expect((await post(['http://other.example'])).vary).toBe('origin');
    expect(await post(['*'])).not.toHaveProperty('vary');
  });
});
