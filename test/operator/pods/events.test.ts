import { describe, expect, it } from 'vitest';
import { serverEvents } from '../../../operator/pods/events.ts';
import { PodUnreachable } from '../../../server/transfer/unreachable.ts';

async function* inChunks(text: string, bytes: number): AsyncGenerator<Uint8Array> {
  const whole = Buffer.from(text);
  for (let at = 0; at < whole.length; at += bytes) yield whole.subarray(at, at + bytes);
}

async function read(text: string, bytes = 1): Promise<string[]> {
  const found: string[] = [];
  for await (const { data } of serverEvents(inChunks(text, bytes))) found.push(data);
  return found;
}

describe('the events of a watch', () => {
  it.each([
    ['one', 'data: {"a":1}\n\n', ['{"a":1}']],
    ['without the space', 'data:x\n\n', ['x']],
    ['with CRLF', 'data: x\r\n\r\ndata: y\r\n\r\n', ['x', 'y']],
    ['of several lines', 'data: x\ndata: y\n\n', ['x\ny']],
    ['between comments and other fields', ': alive\n\nid: 7\ndata: x\n\n: alive\n\n', ['x']],
    ['with characters of several bytes', 'data: größer\n\n', ['größer']],
    ['cut off before its end', 'data: x\n\ndata: y', ['x']],
  ])('are found however they are cut: %s', async (_name, text, expected) => {
    for (const bytes of [1, 2, 3, text.length * 2]) expect(await read(text, bytes)).toEqual(expected);
  });

  it('have a type and an id where the stream says so', async () => {
    const found = [];
    const text = 'event: changes\nid: boot.7\ndata: x\n\ndata: y\n\n';
    for await (const event of serverEvents(inChunks(text, 3))) found.push(event);
    expect(found).toEqual([
      { type: 'changes', id: 'boot.7', data: 'x' },
      { type: '', id: '', data: 'y' },
    ]);
  });

  it('cost what their length is, not its square', async () => {
    const before = process.cpuUsage();
    const [data] = await read(`data: ${'x'.repeat(8 << 20)}\n\n`, 1024);
    const { user, system } = process.cpuUsage(before);
    expect(data).toHaveLength(8 << 20);
    expect((user + system) / 1000).toBeLessThan(1_500);
  });

  it.each([
    ['line', `data: ${'x'.repeat(17 << 20)}`],
    ['event', `data: ${'x'.repeat(1 << 20)}\n`.repeat(17)],
  ])('are bounded: a %s that does not end is given up', async (_name, text) => {
    await expect(read(text, 64 * 1024)).rejects.toThrow(PodUnreachable);
  });
});
