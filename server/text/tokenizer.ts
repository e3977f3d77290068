import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';
import { Detokenizer } from './detokenizer.ts';
import { missingFile } from './files.ts';
import { resolveTokenizer, type SpecialTokens } from './special-tokens.ts';
import { type ByteTable, byteTable } from './token-bytes.ts';
import { readTokenizerFiles, type TokenizerFiles } from './tokenizer-files.ts';

/** A noncharacter: stands inside special tokens of untrusted text so that they are not found, see `defuse`. */
const GUARD = '\uFDD0';

/** Text to token ids and back, exactly as Hugging Face's tokenizers do it. */
export class Tokenizer {
  private readonly inner: HuggingFaceTokenizer;
  private readonly bytes: ByteTable;
  private readonly specialIds: Set<number>;
  private readonly specialPattern: RegExp | null;
  readonly specialTokens: SpecialTokens;

  constructor(files: TokenizerFiles) {
    const { tokenizer, specialTokens } = resolveTokenizer(files);
    this.inner = new HuggingFaceTokenizer(tokenizer, files.config);
    this.specialTokens = specialTokens;
    const special = tokenizer.added_tokens.filter((token) => token.special);
    this.specialIds = new Set(special.map((token) => token.id));
    this.specialPattern = patternOf(special.map((token) => token.content));
    this.bytes = byteTable(
      this.inner,
      tokenizer.decoder,
      new Set(tokenizer.added_tokens.map(({ id }) => id)),
    );
    removeGuardsBefore(this.inner);
  }

  static async load(modelDir: string): Promise<Tokenizer> {
    const files = await readTokenizerFiles(modelDir);
    if (files.tokenizer.model === undefined) throw missingFile(modelDir, 'tokenizer.json');
    return new Tokenizer(files);
  }

  /** Special tokens in `text` become their ids. `addSpecial` puts a BOS in front where the model wants one. */
  encode(text: string, options: { addSpecial: boolean }): number[] {
    return this.encodeGuarded(text.replaceAll(GUARD, GUARD + GUARD), options);
  }

  /** As `encode`, for text whose untrusted parts went through `defuse`: those parts become ordinary tokens. */
  encodeGuarded(text: string, options: { addSpecial: boolean }): number[] {
    return this.inner.encode(text, { add_special_tokens: options.addSpecial }).ids;
  }

  /** Untrusted text for a chat template: what looks like a special token in it will be encoded letter by letter. */
  defuse(text: string): string {
    const guarded = text.replaceAll(GUARD, GUARD + GUARD);
    if (this.specialPattern === null) return guarded;
    return guarded.replace(this.specialPattern, (token) => token.slice(0, 1) + GUARD + token.slice(1));
  }

  decode(ids: readonly number[], options: { skipSpecial: boolean } = { skipSpecial: true }): string {
    const detokenizer = this.detokenizer(options);
    return ids.map((id) => detokenizer.push(id)).join('') + detokenizer.end();
  }

  detokenizer(options: { skipSpecial: boolean } = { skipSpecial: true }): Detokenizer {
    return new Detokenizer(this, options.skipSpecial);
  }

  /** The token as the vocabulary writes it, or null for an id that has none. */
  tokenName(id: number): string | null {
    return this.inner.id_to_token(id) ?? null;
  }

  /** The bytes that the token adds to a text; half a character is possible. */
  tokenBytes(id: number): Uint8Array {
    return this.bytes.get(id);
  }

  /** The token that ends a text, or null where the files name none. */
  get eosTokenId(): number | null {
    const eos = this.specialTokens.eos_token;
    return eos === undefined ? null : (this.inner.token_to_id(eos) ?? null);
  }

  isSpecial(id: number): boolean {
    return this.specialIds.has(id);
  }
}

function patternOf(contents: string[]): RegExp | null {
  if (contents.length === 0) return null;
  const longestFirst = contents.toSorted((a, b) => b.length - a.length);
  return new RegExp(
    longestFirst.map((content) => content.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&')).join('|'),
    'g',
  );
}

/** Special tokens have been split off when the pre-tokenizer sees a section: the guards have done their work. */
function removeGuardsBefore(inner: HuggingFaceTokenizer): void {
  const next = inner.pre_tokenizer;
  const withoutGuards = (text: string, options?: object): string[] => {
    const plain = text.replace(/\uFDD0(\uFDD0?)/g, '$1');
    return next === null ? [plain] : next(plain, options);
  };
  inner.pre_tokenizer = withoutGuards as unknown as HuggingFaceTokenizer['pre_tokenizer'];
}
