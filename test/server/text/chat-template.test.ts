import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ChatTemplate, ChatTemplateError } from '../../../server/text/chat-template.ts';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'lorikeet-test-'));
});
afterEach(() => rmSync(dir, { recursive: true }));

const HI = [{ role: 'user', content: ' Hi ' }];

async function render(
  config: object,
  variables: Record<string, string | boolean> = {},
): Promise<string | undefined> {
  writeFileSync(join(dir, 'tokenizer_config.json'), JSON.stringify(config));
  const template = await ChatTemplate.load(dir);
  return template?.render(HI, { addGenerationPrompt: true, variables });
}

describe('chat template', () => {
  it('is a string of tokenizer_config.json', async () => {
    const chat_template =
      '{{ bos_token }}{{ messages[0].content | trim }}{% if add_generation_prompt %}>{% endif %}';
    expect(await render({ chat_template, bos_token: '<s>' })).toBe('<s>Hi>');
    expect(await render({ chat_template, bos_token: { content: '<b>' } })).toBe('<b>Hi>');
  });

  it('is the one called default of several', async () => {
    const chat_template = [
      { name: 'tool_use', template: 'T' },
      { name: 'default', template: 'D' },
    ];
    expect(await render({ chat_template })).toBe('D');
  });

  it('is chat_template.jinja where there is one', async () => {
    writeFileSync(join(dir, 'chat_template.jinja'), 'FILE');
    expect(await render({ chat_template: 'CONFIG' })).toBe('FILE');
  });

  it('is of a processor where nothing else has one', async () => {
    writeFileSync(join(dir, 'chat_template.json'), JSON.stringify({ chat_template: 'PROCESSOR' }));
    expect(await render({})).toBe('PROCESSOR');
    expect(await render({ chat_template: 'CONFIG' })).toBe('CONFIG');
  });

  it('may be named as the keys of an object', async () => {
    expect(await render({ chat_template: { default: 'D', tool_use: 'T' } })).toBe('D');
  });

  it('for tools is the one called tool_use, of a list or of a file', async () => {
    const chat_template = [{ name: 'default', template: 'D' }];
    mkdirSync(join(dir, 'additional_chat_templates'));
    writeFileSync(join(dir, 'additional_chat_templates/tool_use.jinja'), '{{ tools | length }} T');
    writeFileSync(join(dir, 'tokenizer_config.json'), JSON.stringify({ chat_template }));
    const template = await ChatTemplate.load(dir);
    const options = { addGenerationPrompt: true, variables: {} };
    expect(template?.render(HI, options)).toBe('D');
    expect(template?.render(HI, { ...options, tools: [{}] })).toBe('1 T');
  });

  it('is refused where there are several without a default', async () => {
    const chat_template = { tool_use: 'T', rag: 'R' };
    await expect(render({ chat_template })).rejects.toThrow('none of them called default: rag, tool_use');
  });

  it('that cannot be parsed is refused with its file and the reason, and only when it is used', async () => {
    writeFileSync(join(dir, 'tokenizer_config.json'), JSON.stringify({ chat_template: '{% do x %}' }));
    const reason = 'chat_template in tokenizer_config.json cannot be parsed: Unknown statement type: do';
    const template = await ChatTemplate.load(dir);
    expect(template?.problems).toEqual([reason]);
    await expect(render({ chat_template: '{% do x %}' })).rejects.toThrow(new ChatTemplateError(reason));
  });

  it('may be missing', async () => {
    expect(await render({})).toBeUndefined();
  });

  it('sees no tools, and what the client sets', async () => {
    const chat_template = '{{ tools is none }} {{ enable_thinking is defined and not enable_thinking }}';
    expect(await render({ chat_template }, { enable_thinking: false })).toBe('True True');
    expect(await render({ chat_template })).toBe('True False');
  });

  it('lets the client set nothing of its own', async () => {
    const chat_template = '{{ bos_token }}{{ messages[0].role }}';
    expect(await render({ chat_template, bos_token: '<s>' }, { messages: 'x', bos_token: 'y' })).toBe(
      '<s>user',
    );
  });

  it('refuses a conversation in its own words', async () => {
    const chat_template = "{{ raise_exception('roles must alternate') }}";
    await expect(render({ chat_template })).rejects.toThrow(ChatTemplateError);
    await expect(render({ chat_template })).rejects.toThrow('roles must alternate');
  });
});
