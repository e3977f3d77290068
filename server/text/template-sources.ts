import { readdir } from 'node:fs/promises';
import { isObject, type Json, readJsonIfThere, readTextIfThere } from './files.ts';

export interface TemplateSource {
  text: string;
  /** The file that it stands in, for messages. */
  file: string;
}

/** Templates by name; the one that is used without tools is called `default`. */
export type TemplateSources = Map<string, TemplateSource>;

const OWN_FILE = 'chat_template.jinja';
const MORE_FOLDER = 'additional_chat_templates';
/** What processors of models with pictures wrote before there was a file of its own. */
const PROCESSOR_FILE = 'chat_template.json';
const NAME = /^([\w.-]+)\.jinja$/;

/** Each place in turn overrides the ones before it, as in transformers. */
export async function readTemplateSources(dir: string, tokenizerConfig: Json): Promise<TemplateSources> {
  const sources: TemplateSources = new Map();
  const processor = await readJsonIfThere(dir, PROCESSOR_FILE);
  for (const [file, value] of [
    [PROCESSOR_FILE, processor?.chat_template],
    ['tokenizer_config.json', tokenizerConfig.chat_template],
  ] as const) {
    for (const [name, text] of namedTexts(value)) sources.set(name, { text, file });
  }
  const own = await readTextIfThere(dir, OWN_FILE);
  if (own !== null) sources.set('default', { text: own, file: OWN_FILE });
  for (const entry of await namesIn(`${dir}/${MORE_FOLDER}`)) {
    const [, name] = NAME.exec(entry) ?? [];
    const text = name === undefined ? null : await readTextIfThere(dir, `${MORE_FOLDER}/${entry}`);
    if (name !== undefined && text !== null) sources.set(name, { text, file: `${MORE_FOLDER}/${entry}` });
  }
  return sources;
}

/** A string, a list of `{name, template}`, or templates by name. */
function namedTexts(value: unknown): [name: string, text: string][] {
  if (typeof value === 'string') return [['default', value]];
  const entries: [unknown, unknown][] = Array.isArray(value)
    ? value.filter(isObject).map(({ name, template }) => [name, template])
    : Object.entries(isObject(value) ? value : {});
  return entries.filter(
    (entry): entry is [string, string] => typeof entry[0] === 'string' && typeof entry[1] === 'string',
  );
}

async function namesIn(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT' || code === 'ENOTDIR') return [];
    throw error;
  }
}
