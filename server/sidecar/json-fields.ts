const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const COLON = 0x3a;
const OPEN_OBJECT = 0x7b;
const BETWEEN = Buffer.from(',');
const END = Buffer.from('}');
const SPACES = [0x20, 0x09, 0x0a, 0x0d];

/** What a byte does to the value that it is in; most do nothing. */
const [INERT, TEXT, OPEN, CLOSE, SEPARATOR] = [0, 1, 2, 3, 4];
const ROLES = new Uint8Array(256);
ROLES[QUOTE] = TEXT;
ROLES[0x5b] = ROLES[OPEN_OBJECT] = OPEN;
ROLES[0x5d] = ROLES[0x7d] = CLOSE;
ROLES[COMMA] = SEPARATOR;

/** Where in the bytes a field of the outermost object lies: from its name to the end of its value. */
export interface FieldPlace {
  name: string;
  begin: number;
  valueBegin: number;
  end: number;
}

/** Fields of the outermost object of `bytes`, which are JSON: whoever calls has parsed them. */
export function fieldsOf(bytes: Buffer): FieldPlace[] {
  const fields: FieldPlace[] = [];
  let at = bytes.indexOf(OPEN_OBJECT) + 1;
  for (;;) {
    at = skipSpaces(bytes, at);
    if (bytes[at] === COMMA) {
      at += 1;
      continue;
    }
    if (bytes[at] !== QUOTE) return fields;
    const nameEnd = endOfText(bytes, at);
    const colon = bytes.indexOf(COLON, nameEnd);
    const valueBegin = skipSpaces(bytes, colon + 1);
    const end = endOfValue(bytes, valueBegin);
    const name = JSON.parse(bytes.toString('utf8', at, nameEnd)) as string;
    fields.push({ name, begin: at, valueBegin, end });
    at = end;
  }
}

/** The same object without the named fields, and with others at its end; all else is the same bytes. */
export function withFields(
  bytes: Buffer,
  dropped: readonly string[],
  added: Record<string, unknown>,
  fields: readonly FieldPlace[] = fieldsOf(bytes),
): Buffer {
  const open = bytes.indexOf(OPEN_OBJECT);
  const stays = ({ name }: FieldPlace) => !dropped.includes(name) && !Object.hasOwn(added, name);
  const kept = stretches(fields, stays).map(({ begin, end }) => bytes.subarray(begin, end));
  const texts = Object.entries(added).map(
    ([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`,
  );
  const parts = texts.length === 0 ? kept : [...kept, Buffer.from(texts.join(','))];
  const separated = parts.flatMap((part, index) => (index === 0 ? [part] : [BETWEEN, part]));
  return Buffer.concat([bytes.subarray(0, open + 1), ...separated, END]);
}

/** Fields that stay, each run of them with what lies between. */
function stretches(
  fields: readonly FieldPlace[],
  stays: (field: FieldPlace) => boolean,
): { begin: number; end: number }[] {
  const found: { begin: number; end: number }[] = [];
  let last: { begin: number; end: number } | null = null;
  for (const field of fields) {
    const { begin, end } = field;
    if (!stays(field)) {
      last = null;
    } else if (last === null) {
      last = { begin, end };
      found.push(last);
    } else {
      last.end = end;
    }
  }
  return found;
}

function skipSpaces(bytes: Buffer, from: number): number {
  let at = from;
  while (SPACES.includes(bytes[at] as number)) at += 1;
  return at;
}

/** Behind the closing quote of the text that begins at `from`. */
function endOfText(bytes: Buffer, from: number): number {
  let at = from + 1;
  while (at < bytes.length && bytes[at] !== QUOTE) at += bytes[at] === BACKSLASH ? 2 : 1;
  return at + 1;
}

function endOfValue(bytes: Buffer, from: number): number {
  let depth = 0;
  for (let at = from; at < bytes.length; at += 1) {
    const role = ROLES[bytes[at] as number];
    if (role === INERT) continue;
    if (role === TEXT) {
      at = endOfText(bytes, at) - 1;
      if (depth === 0) return at + 1;
    } else if (role === OPEN) {
      depth += 1;
    } else if (role === CLOSE) {
      // Of the object around it, where the value is a number or a word.
      if (depth === 0) return trimmed(bytes, from, at);
      depth -= 1;
      if (depth === 0) return at + 1;
    } else if (depth === 0) {
      return trimmed(bytes, from, at);
    }
  }
  return bytes.length;
}

function trimmed(bytes: Buffer, from: number, to: number): number {
  let end = to;
  while (end > from && SPACES.includes(bytes[end - 1] as number)) end -= 1;
  return end;
}
