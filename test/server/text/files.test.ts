import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ChatTemplate } from '../../../server/text/chat-template.ts';
import { TextFileError } from '../../../server/text/files.ts';
import { Tokenizer } from '../../../server/text/tokenizer.ts';

const PARROT = resolve(import.meta.dirname, '../../fixtures/parrot');

describe('a model folder', () => {
  let dir: string;
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'lorikeet-test-'));
  });
  afterEach(() => rmSync(dir, { recursive: true }));

  it('without tokenizer.json is refused by the name of the file', async () => {
    await expect(Tokenizer.load(dir)).rejects.toThrow(TextFileError);
    await expect(Tokenizer.load(dir)).rejects.toThrow(/tokenizer\.json/);
  });

  it('whose files begin with byte order marks has the same tokens and template', async () => {
    for (const name of ['tokenizer.json', 'tokenizer_config.json']) {
      writeFileSync(
        join(dir, name),
        Buffer.concat([Buffer.from('\ufeff'), readFileSync(join(PARROT, name))]),
      );
    }
    const [marked, whole] = await Promise.all([Tokenizer.load(dir), Tokenizer.load(PARROT)]);
    expect(marked.encode('Hi', { addSpecial: true })).toEqual(whole.encode('Hi', { addSpecial: true }));
    expect(await ChatTemplate.load(dir)).not.toBeNull();
  });

  it('with a file that is no JSON is refused by the name of the file', async () => {
    writeFileSync(join(dir, 'tokenizer_config.json'), '{');
    await expect(Tokenizer.load(dir)).rejects.toMatchObject({
      code: 'malformed_file',
      message: expect.stringContaining('tokenizer_config.json'),
    });
  });

  it('without tokenizer_config.json has the same tokens, and no chat template', async () => {
    copyFileSync(join(PARROT, 'tokenizer.json'), join(dir, 'tokenizer.json'));
    const [bare, whole] = await Promise.all([Tokenizer.load(dir), Tokenizer.load(PARROT)]);
    const text = 'List the name of all songs from Lima.';
    expect(bare.encode(text, { addSpecial: false })).toEqual(whole.encode(text, { addSpecial: false }));
    expect(await ChatTemplate.load(dir)).toBeNull();
  });
});
