import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ChatTemplate } from '../../../server/text/chat-template.ts';
import { TextFileError } from '../../../server/text/files.ts';
import { Tokenizer } from '../../../server/text/tokenizer.ts';

const PARROT = resolve(import.meta.dirname, '../../fixtures/parrot');

describe('a model folder', () => {
  let dir: string;
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), 'lorikeet-test-'));
  });
  afterAll(() => rmSync(dir, { recursive: true }));

  it('without tokenizer.json is refused by the name of the file', async () => {
    await expect(Tokenizer.load(dir)).rejects.toThrow(TextFileError);
    await expect(Tokenizer.load(dir)).rejects.toThrow(/tokenizer\.json/);
  });

  it('without tokenizer_config.json has the same tokens, and no chat template', async () => {
    copyFileSync(join(PARROT, 'tokenizer.json'), join(dir, 'tokenizer.json'));
    const [bare, whole] = await Promise.all([Tokenizer.load(dir), Tokenizer.load(PARROT)]);
    const text = 'List the name of all songs from Lima.';
    expect(bare.encode(text, { addSpecial: false })).toEqual(whole.encode(text, { addSpecial: false }));
    expect(await ChatTemplate.load(dir)).toBeNull();
  });
});
