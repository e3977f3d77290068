import { ApiError } from './api-error.ts';

/** A page of 500 pods is about 10 MB; etcd lets no object grow over 1.5 MiB. */
const BODY_BYTES_MAX = 128 << 20;
const LINE_CHARS_MAX = 8 << 20;

export async function text(body: AsyncIterable<Uint8Array>): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of body) {
    bytes += chunk.length;
    if (bytes > BODY_BYTES_MAX) throw tooLarge(`a body of more than ${BODY_BYTES_MAX} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

/** The whole lines of a body; what follows the last newline is a line cut short and fails. */
export async function* lines(
  body: AsyncIterable<Uint8Array>,
  onBytes: () => void,
): AsyncGenerator<string, void, undefined> {
  const decoder = new TextDecoder();
  let rest: string[] = [];
  let restChars = 0;
  for await (const chunk of body) {
    onBytes();
    const parts = decoder.decode(chunk, { stream: true }).split('\n');
    const last = parts.pop() ?? '';
    for (const part of parts) {
      const line = rest.join('') + part;
      rest = [];
      restChars = 0;
      if (line !== '') yield line;
    }
    rest.push(last);
    restChars += last.length;
    if (restChars > LINE_CHARS_MAX) throw tooLarge(`a line of more than ${LINE_CHARS_MAX} characters`);
  }
  if (restChars > 0) throw new ApiError({ status: 0, reason: 'Malformed' }, 'the stream ended within a line');
}

function tooLarge(what: string): ApiError {
  return new ApiError({ status: 0, reason: 'TooLarge' }, `the API server sent ${what}`);
}
