export const OPCODE = { continuation: 0, binary: 2, close: 8 } as const;

const LENGTH_16 = 126;
const LENGTH_64 = 127;

/** One unmasked, whole message, as a server sends it. */
export function frame(opcode: number, payload: Buffer): Buffer {
  const { length } = payload;
  const size = length < LENGTH_16 ? 0 : length < 2 ** 16 ? 2 : 8;
  const head = Buffer.alloc(2 + size);
  head[0] = 0x80 | opcode;
  head[1] = size === 0 ? length : size === 2 ? LENGTH_16 : LENGTH_64;
  if (size === 2) head.writeUInt16BE(length, 2);
  if (size === 8) head.writeBigUInt64BE(BigInt(length), 2);
  return Buffer.concat([head, payload]);
}

/** Reads the masked frames of a client; `take` is given whatever comes. */
export class FrameReader {
  readonly #onMessage: (opcode: number, message: Buffer) => void;
  #pending: Buffer = Buffer.alloc(0);
  #parts: Buffer[] = [];

  constructor(onMessage: (opcode: number, message: Buffer) => void) {
    this.#onMessage = onMessage;
  }

  take(data: Buffer): void {
    this.#pending = this.#pending.length === 0 ? data : Buffer.concat([this.#pending, data]);
    for (let used = this.#takeOne(); used > 0; used = this.#takeOne())
      this.#pending = this.#pending.subarray(used);
  }

  /** How many bytes the next frame was; 0: it is not whole yet. */
  #takeOne(): number {
    const bytes = this.#pending;
    if (bytes.length < 2) return 0;
    const short = (bytes[1] as number) & 0x7f;
    const size = short === LENGTH_16 ? 2 : short === LENGTH_64 ? 8 : 0;
    const begin = 2 + size + 4;
    if (bytes.length < begin) return 0;
    const length = size === 0 ? short : size === 2 ? bytes.readUInt16BE(2) : Number(bytes.readBigUInt64BE(2));
    if (bytes.length < begin + length) return 0;
    const mask = bytes.subarray(begin - 4, begin);
    const payload = Buffer.from(bytes.subarray(begin, begin + length));
    for (let at = 0; at < length; at++) payload[at] = (payload[at] as number) ^ (mask[at & 3] as number);
    this.#frame(bytes[0] as number, payload);
    return begin + length;
  }

  #frame(first: number, payload: Buffer): void {
    const opcode = first & 0x0f;
    if (opcode > OPCODE.binary) {
      this.#onMessage(opcode, payload);
      return;
    }
    this.#parts.push(payload);
    if ((first & 0x80) === 0) return;
    const message = Buffer.concat(this.#parts);
    this.#parts = [];
    this.#onMessage(OPCODE.binary, message);
  }
}
