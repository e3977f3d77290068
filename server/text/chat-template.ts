import { Template } from './jinja/template.ts';
import { TemplateError } from './jinja/values.ts';
import { resolveTokenizer, type SpecialTokens } from './special-tokens.ts';
import { readTemplateSources, type TemplateSources } from './template-sources.ts';
import { readTokenizerFiles } from './tokenizer-files.ts';

export interface ChatMessage {
  role: string;
  content: string | null;
  /** What templates know besides: `tool_calls`, `name`, `reasoning_content`. */
  [field: string]: unknown;
}

export interface ChatTemplateOptions {
  addGenerationPrompt: boolean;
  /** Extra variables, as `enable_thinking`. */
  variables: Record<string, string | number | boolean>;
  tools?: unknown[] | null;
}

/** The template refused the conversation, for example because roles do not alternate, or is no template. */
export class ChatTemplateError extends Error {}

/** A model's own way to write a conversation as one text. */
export class ChatTemplate {
  private readonly templates: Map<string, Template | ChatTemplateError>;
  private readonly specialTokens: SpecialTokens;

  constructor(sources: string | TemplateSources, specialTokens: SpecialTokens) {
    const named =
      typeof sources === 'string' ? new Map([['default', { text: sources, file: 'a string' }]]) : sources;
    this.templates = new Map([...named].map(([name, { text, file }]) => [name, parse(text, name, file)]));
    this.specialTokens = specialTokens;
  }

  /** Null where the model comes without a template. */
  static async load(modelDir: string): Promise<ChatTemplate | null> {
    const files = await readTokenizerFiles(modelDir);
    const sources = await readTemplateSources(modelDir, files.config);
    return sources.size === 0 ? null : new ChatTemplate(sources, resolveTokenizer(files).specialTokens);
  }

  /** Why chats will be refused, whatever they are; the server serves completions all the same. */
  get problems(): string[] {
    return [...this.templates.values()].flatMap((template) =>
      template instanceof ChatTemplateError ? [template.message] : [],
    );
  }

  render(messages: ChatMessage[], options: ChatTemplateOptions): string {
    const tools = options.tools ?? null;
    try {
      return this.choose(tools !== null).render({
        ...options.variables,
        ...this.specialTokens,
        messages: messages.map(asTemplatesKnow),
        tools,
        documents: null,
        add_generation_prompt: options.addGenerationPrompt,
      });
    } catch (cause) {
      // RangeError: a macro that calls itself without end.
      if (!(cause instanceof TemplateError || cause instanceof RangeError)) throw cause;
      throw new ChatTemplateError(cause.message, { cause });
    }
  }

  private choose(hasTools: boolean): Template {
    const template = (hasTools ? this.templates.get('tool_use') : undefined) ?? this.templates.get('default');
    if (template instanceof ChatTemplateError) throw template;
    if (template !== undefined) return template;
    const names = [...this.templates.keys()].toSorted().join(', ');
    throw new ChatTemplateError(`the model has several, none of them called default: ${names}`);
  }
}

/** Names that models and clients give the thoughts before an answer. */
const REASONING = ['reasoning_content', 'thinking', 'reasoning'];

/** As transformers 5 hands it over: without nulls, and thoughts under each name that a template may read. */
function asTemplatesKnow(message: ChatMessage): Record<string, unknown> {
  const given = Object.fromEntries(Object.entries(message).filter(([, value]) => (value ?? null) !== null));
  const name = REASONING.find((candidate) => given[candidate] !== undefined);
  if (name === undefined) return given;
  return { thinking: given[name], ...given, reasoning_content: given[name] };
}

function parse(text: string, name: string, file: string): Template | ChatTemplateError {
  try {
    return new Template(text);
  } catch (cause) {
    if (!(cause instanceof TemplateError)) throw cause;
    const which = name === 'default' ? 'chat_template' : `chat_template ${name}`;
    return new ChatTemplateError(`${which} in ${file} cannot be parsed: ${cause.message}`, { cause });
  }
}
