import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'vitest';
import { fixtureAdapter } from '../client.ts';

interface Said {
  status: number;
  type: string;
  /** What the sidecar reads of it. */
  body: unknown;
}

type Read = (text: string) => unknown;

async function said(url: string, path: string, body: object | null, read: Read): Promise<Said> {
  const response = await fetch(url + path, {
    ...(body !== null && {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    }),
  });
  const text = await response.text();
  const type = (response.headers.get('content-type') ?? '').split(';')[0] ?? '';
  return { status: response.status, type, body: read(text) };
}

/** Asks the real engine and the fake of our tests the same. */
export async function expectSame(
  engines: { real: { url: string }; fake: { url: string } },
  path: string,
  body: object | null,
  read: Read,
): Promise<void> {
  const [real, fake] = await Promise.all([
    said(engines.real.url, path, body, read),
    said(engines.fake.url, path, body, read),
  ]);
  expect(fake).toEqual(real);
}

/** The folder of an adapter. */
export async function sqlFolder(): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'lorikeet-protocol-'));
  const { tensors, config } = await fixtureAdapter('sql');
  await writeFile(join(dir, 'adapter_model.safetensors'), tensors);
  await writeFile(join(dir, 'adapter_config.json'), config);
  return dir;
}

export const names: Read = (text) =>
  JSON.parse(text).data.map(({ id, parent }: { id: string; parent?: string | null }) => ({
    id,
    parent: parent ?? null,
  }));
export const nothing: Read = () => null;
export const words =
  (pattern: RegExp): Read =>
  (text) =>
    pattern.test(text);
export const choice: Read = (text) => {
  const { model, choices, usage } = JSON.parse(text);
  return [model, choices[0].finish_reason, usage.completion_tokens];
};
/** The end of a stream, and that fields are written as EventRewriter expects. */
export const stream: Read = (text) => {
  const events = text.trimEnd().split('\n\n');
  const last = JSON.parse(events.at(-2)?.slice('data: '.length) ?? '');
  return [events.at(-1), last.model, last.choices[0].finish_reason, / "model"|"model":\s"/.test(text)];
};
