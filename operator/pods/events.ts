import { PodUnreachable } from '../../server/transfer/unreachable.ts';

const EVENT_BYTES_MAX = 16 * 1024 * 1024;

/** The `data:` payloads of a text/event-stream. Comments and other fields only prove that the peer is alive. */
export async function* eventData(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  let data: string[] = [];
  let length = 0;
  for await (const line of linesOf(chunks)) {
    if (line.startsWith('data:')) {
      data.push(line.slice(line.startsWith('data: ') ? 6 : 5));
      length += line.length;
      if (length > EVENT_BYTES_MAX) throw tooLong();
    }
    if (line !== '' || data.length === 0) continue;
    yield data.join('\n');
    data = [];
    length = 0;
  }
}

/** Looks at each character once: an event of a full pod is some megabytes in chunks of a few kilobytes. */
async function* linesOf(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder('utf-8', { fatal: true });
  let parts: string[] = [];
  let length = 0;
  for await (const chunk of chunks) {
    const text = decoder.decode(chunk, { stream: true });
    let begin = 0;
    for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n', begin)) {
      parts.push(text.slice(begin, end));
      yield parts.join('').replace(/\r$/, '');
      parts = [];
      length = 0;
      begin = end + 1;
    }
    parts.push(text.slice(begin));
    length += text.length - begin;
    if (length > EVENT_BYTES_MAX) throw tooLong();
  }
}

function tooLong(): PodUnreachable {
  return new PodUnreachable('an event of the watch is longer than 16 MiB');
}
