import { badRequest } from './errors.ts';

/** Texts (keys among them), lists and maps of one body. Numbers are not counted: a prompt may be millions of token ids. */
const PARTS_MAX = 65_536;
const DEPTH_MAX = 64;
const FIELD_BYTES_MAX = 64;

const QUOTE = 0x22;
const COLON = 0x3a;
const BACKSLASH = 0x5c;
const OPEN = [0x5b, 0x7b];
const CLOSE = [0x5d, 0x7d];
/** 1 for the bytes that say how a body is built; most are others, of numbers and commas. */
const BUILDS = Uint8Array.from({ length: 256 }, (_, byte) =>
  Number([QUOTE, COLON, ...OPEN, ...CLOSE].includes(byte)),
);

const UTF8 = new TextDecoder();
/** A caution only, for no field is ever merged into another object. */
const PROTOTYPE = /"__proto__"\s*:/;

/**
 * A request body as JSON. Its bytes are counted before: JSON.parse takes seconds, and hundreds of megabytes, for what a
 * few megabytes of brackets or keys describe.
 */
export function parseJsonBody(bytes: Buffer): unknown {
  if (bytes.length === 0) throw badRequest('Expected a JSON object as the body but received nothing');
  requireFewParts(bytes);
  const text = UTF8.decode(bytes);
  if (PROTOTYPE.test(text)) throw badRequest('Expected no __proto__ in the body');
  try {
    return withWholeSeed(JSON.parse(text), text);
  } catch (error) {
    throw badRequest(`Expected JSON as the body: ${(error as Error).message.slice(0, 200)}`);
  }
}

/** What is no JSON is counted somehow: the parser will refuse it. */
function requireFewParts(bytes: Buffer): void {
  let parts = 0;
  let depth = 0;
  /** The last text of the outermost map: the name of the field that follows, if a colon does. */
  let name = { start: 0, end: 0 };
  let field = name;
  for (let at = 0; at < bytes.length; at += 1) {
    const byte = bytes[at] as number;
    if (BUILDS[byte] === 0) continue;
    if (byte === QUOTE) {
      const end = endOfText(bytes, at + 1);
      if (depth === 1) name = { start: at + 1, end };
      at = end;
      parts += 1;
    } else if (OPEN.includes(byte)) {
      depth += 1;
      parts += 1;
    } else if (CLOSE.includes(byte)) {
      depth -= 1;
    } else if (depth === 1) {
      field = name;
    }
    if (parts > PARTS_MAX) throw refusal(`at most ${PARTS_MAX} texts, lists and maps`, bytes, field);
    if (depth > DEPTH_MAX) throw refusal(`at most ${DEPTH_MAX} levels of lists and maps`, bytes, field);
  }
}

/** Where the closing quote is. */
function endOfText(bytes: Buffer, start: number): number {
  let at = start;
  while (at < bytes.length && bytes[at] !== QUOTE) at += bytes[at] === BACKSLASH ? 2 : 1;
  return at;
}

function refusal(words: string, bytes: Buffer, field: { start: number; end: number }): Error {
  const name = bytes.toString('utf8', field.start, Math.min(field.end, field.start + FIELD_BYTES_MAX));
  const place = name === '' ? 'the body' : name;
  return badRequest(`Expected ${words} up to ${place} but received more`, name === '' ? undefined : name);
}

/** Clients send seeds of up to 2^63 - 1, of which JSON.parse keeps the first 53 bits: such a one comes as a bigint. */
function withWholeSeed(body: unknown, text: string): unknown {
  if (typeof body !== 'object' || body === null || !('seed' in body)) return body;
  const { seed } = body;
  if (!Number.isInteger(seed) || Number.isSafeInteger(seed)) return body;
  const whole = [...text.matchAll(/"seed"\s*:\s*(-?\d{16,20})(?![\d.eE])/g)]
    .map(([, digits = '']) => BigInt(digits))
    .findLast((written) => Number(written) === seed);
  return whole === undefined ? body : { ...body, seed: whole };
}
