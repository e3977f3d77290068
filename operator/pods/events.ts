import { PodUnreachable } from './errors.ts';

const EVENT_BYTES_MAX = 16 * 1024 * 1024;

/** The `data:` payloads of a text/event-stream. Comments and other fields only prove that the peer is alive. */
export async function* eventData(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder('utf-8', { fatal: true });
  let rest = '';
  let data: string[] = [];
  for await (const chunk of chunks) {
    rest += decoder.decode(chunk, { stream: true });
    if (rest.length > EVENT_BYTES_MAX) throw new PodUnreachable('a line of the watch is longer than 16 MiB');
    const lines = rest.split(/\r?\n/);
    rest = lines.pop() ?? '';
    for (const line of lines) {
      if (line.startsWith('data:')) data.push(line.slice(line.startsWith('data: ') ? 6 : 5));
      if (line !== '' || data.length === 0) continue;
      yield data.join('\n');
      data = [];
    }
  }
}
