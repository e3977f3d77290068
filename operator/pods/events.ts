import { PodUnreachable } from '../../server/transfer/unreachable.ts';

const EVENT_BYTES_MAX = 16 * 1024 * 1024;

export interface ServerEvent {
  /** Empty where the stream says none. */
  type: string;
  id: string;
  data: string;
}

/** The events of a text/event-stream. Comments only prove that the peer is alive; what has no data is none. */
export async function* serverEvents(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<ServerEvent> {
  let data: string[] = [];
  let length = 0;
  let fields = { type: '', id: '' };
  for await (const line of linesOf(chunks)) {
    const [name, value] = fieldOf(line);
    if (name === 'event') fields.type = value;
    if (name === 'id') fields.id = value;
    if (name === 'data') {
      data.push(value);
      length += line.length;
      if (length > EVENT_BYTES_MAX) throw tooLong();
    }
    if (line !== '') continue;
    if (data.length > 0) yield { ...fields, data: data.join('\n') };
    data = [];
    length = 0;
    fields = { type: '', id: '' };
  }
}

function fieldOf(line: string): [name: string, value: string] {
  const colon = line.indexOf(':');
  if (colon < 0) return [line, ''];
  return [line.slice(0, colon), line.slice(line[colon + 1] === ' ' ? colon + 2 : colon + 1)];
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
