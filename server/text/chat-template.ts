import { readTextIfThere } from './files.ts';
import { Template } from './jinja/template.ts';
import { resolveTokenizer, type SpecialTokens } from './special-tokens.ts';
import { readTokenizerFiles } from './tokenizer-files.ts';

export interface ChatMessage {
  role: string;
  content: string;
}

export interface ChatTemplateOptions {
  addGenerationPrompt: boolean;
  /** Extra variables, as `enable_thinking`. */
  variables: Record<string, string | number | boolean>;
}

/** The template refused the conversation, for example because roles do not alternate. */
export class ChatTemplateError extends Error {}

/** A model's own way to write a conversation as one text. */
export class ChatTemplate {
  private readonly template: Template;
  private readonly specialTokens: SpecialTokens;

  constructor(source: string, specialTokens: SpecialTokens) {
    this.template = new Template(source);
    this.specialTokens = specialTokens;
  }

  /** Null where the model comes without a template. */
  static async load(modelDir: string): Promise<ChatTemplate | null> {
    const files = await readTokenizerFiles(modelDir);
    const source =
      (await readTextIfThere(modelDir, 'chat_template.jinja')) ?? templateOf(files.config.chat_template);
    return source === null ? null : new ChatTemplate(source, resolveTokenizer(files).specialTokens);
  }

  render(messages: ChatMessage[], options: ChatTemplateOptions): string {
    try {
      return this.template.render({
        ...options.variables,
        ...this.specialTokens,
        messages,
        tools: null,
        documents: null,
        add_generation_prompt: options.addGenerationPrompt,
      });
    } catch (cause) {
      throw new ChatTemplateError(cause instanceof Error ? cause.message : String(cause), { cause });
    }
  }
}

/** A string, or a list of named templates of which `default` is taken. */
function templateOf(value: unknown): string | null {
  if (typeof value === 'string') return value;
  if (!Array.isArray(value)) return null;
  const named = value.find((entry) => entry?.name === 'default')?.template;
  return typeof named === 'string' ? named : null;
}
