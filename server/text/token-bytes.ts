import type { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';

export interface ByteTable {
  get(id: number): Uint8Array;
}

const EMPTY = new Uint8Array(0);

/** Token id → bytes, computed on first use and kept (at most one entry per vocabulary entry). */
export function byteTable(inner: HuggingFaceTokenizer, decoder: unknown, addedIds: Set<number>): ByteTable {
  const known = new Map<number, Uint8Array>();
  const bytesOf = hasByteLevel(decoder) ? byteLevelBytes : sentencePieceBytes;
  const utf8 = new TextEncoder();
  return {
    get(id) {
      const cached = known.get(id);
      if (cached) return cached;
      const name = inner.id_to_token(id);
      if (name === undefined) return EMPTY;
      const bytes = addedIds.has(id) ? utf8.encode(name) : bytesOf(name);
      known.set(id, bytes);
      return bytes;
    },
  };
}

function hasByteLevel(decoder: unknown): boolean {
  if (typeof decoder !== 'object' || decoder === null) return false;
  const { type, decoders } = decoder as { type?: unknown; decoders?: unknown };
  return type === 'ByteLevel' || (Array.isArray(decoders) && decoders.some(hasByteLevel));
}

/** Printable Latin-1 characters stand for themselves, the other bytes for U+0100 and up, in order (GPT-2). */
function byteOfCharacter(): Map<string, number> {
  const table = new Map<string, number>();
  let next = 0x100;
  for (let byte = 0; byte < 256; byte += 1) {
    const printable =
      (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff);
    table.set(String.fromCodePoint(printable ? byte : next++), byte);
  }
  return table;
}

const BYTE_OF_CHARACTER = byteOfCharacter();

function byteLevelBytes(name: string): Uint8Array {
  return Uint8Array.from(name, (character) => BYTE_OF_CHARACTER.get(character) ?? 0x3f);
}

function sentencePieceBytes(name: string): Uint8Array {
  const byte = /^<0x([0-9A-F]{2})>$/.exec(name);
  if (byte) return Uint8Array.of(Number.parseInt(byte[1] as string, 16));
  return new TextEncoder().encode(name.replaceAll('\u2581', ' '));
}
