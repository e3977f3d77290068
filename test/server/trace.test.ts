import { afterAll, beforeAll, expect, it } from 'vitest';
import { fixtureAdapter } from '../e2e/client.ts';
import { eventually } from '../support/eventually.ts';
import { type ServerProcess, startServer } from '../support/server-process.ts';

/** One server as a user starts it: which of its log lines belong to which request. */

let server: ServerProcess;
let log = '';

beforeAll(async () => {
  server = await startServer(['--model', 'test/fixtures/parrot', '--log-level', 'debug']);
  server.process.stderr?.on('data', (text: string) => {
    log += text;
  });
});

afterAll(async () => {
  await server?.stop();
});

const parentOf = (traceId: string) => `00-${traceId}-b7ad6b7169203331-00`;

async function linesOf(traceId: string, messages: string[]): Promise<Record<string, unknown>[]> {
  return await eventually(`the log has ${messages.join(', ')} of ${traceId}`, { timeoutMs: 10_000 }, () => {
    const lines = log
      .split('\n')
      .filter((line) => line.includes(traceId))
      .map((line) => JSON.parse(line));
    return messages.every((message) => lines.some(({ msg }) => msg === message)) ? lines : undefined;
  });
}

it.each([
  ['streamed', true, 'a'],
  ['at once', false, 'b'],
])(
  'a request answered %s has one id from its headers to what the engine took in',
  async (_, stream, digit) => {
    const traceId = digit.repeat(32);
    const response = await fetch(`${server.serving}/v1/completions`, {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        traceparent: parentOf(traceId),
        'x-request-id': `req-${digit}`,
      },
      body: JSON.stringify({ model: 'parrot', prompt: 'One', max_tokens: 2, stream }),
    });
    await response.text();
    expect(response.headers.get('x-request-id')).toBe(`req-${digit}`);
    expect(response.headers.get('traceparent')).toMatch(new RegExp(`^00-${traceId}-`));
    const lines = await linesOf(traceId, ['taken in by the engine', 'answered']);
    expect(lines).toHaveLength(2);
    for (const line of lines)
      expect(line).toMatchObject({
        trace_id: traceId,
        request_id: `req-${digit}`,
        span_id: expect.any(String),
      });
    expect(lines[0]?.id).toMatch(/^cmpl-/);
  },
);

it('a request that is refused is told its id too', async () => {
  const response = await fetch(`${server.serving}/v1/completions`, { method: 'POST', body: '{' });
  expect(response.status).toBe(400);
  expect(response.headers.get('x-request-id')).toMatch(/^[0-9a-f]{32}$/);
});

it('an upload and its activation are found by the id of their caller', async () => {
  const traceId = 'c'.repeat(32);
  const headers = { authorization: `Bearer ${server.adminToken}`, traceparent: parentOf(traceId) };
  const { tensors, config } = await fixtureAdapter('sql');
  const url = `${server.admin}/lora/v1/adapters/sql`;
  const staged = await fetch(`${url}/revisions`, {
    method: 'POST',
    headers: { ...headers, 'x-lora-config': config.toString('base64url') },
    body: new Uint8Array(tensors),
  });
  const { revision } = (await staged.json()) as { revision: string };
  await fetch(`${url}/activate`, {
    method: 'POST',
    headers: { ...headers, 'content-type': 'application/json' },
    body: JSON.stringify({ revision }),
  });
  await linesOf(traceId, ['staged', 'activated']);
});
