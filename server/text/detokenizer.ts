/** What a detokenizer needs to know of a vocabulary. */
export interface TokenBytes {
  tokenBytes(id: number): Uint8Array;
  isSpecial(id: number): boolean;
}

/** Tokens to text, one at a time. A character split over tokens is given out with its last byte. */
export class Detokenizer {
  private readonly tokens: TokenBytes;
  private readonly skipSpecial: boolean;
  private readonly decoder = new TextDecoder('utf-8', { ignoreBOM: true });

  constructor(tokens: TokenBytes, skipSpecial: boolean) {
    this.tokens = tokens;
    this.skipSpecial = skipSpecial;
  }

  push(id: number): string {
    if (!this.tokens.isSpecial(id)) return this.decoder.decode(this.tokens.tokenBytes(id), { stream: true });
    if (this.skipSpecial) return '';
    return this.decoder.decode() + new TextDecoder().decode(this.tokens.tokenBytes(id));
  }

  /** Bytes that never became a character come out as U+FFFD. */
  end(): string {
    return this.decoder.decode();
  }
}
