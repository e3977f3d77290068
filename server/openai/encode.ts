import type { RequestEncoder } from '../text/encoder.ts';
import { badRequest } from './errors.ts';
import type { Serving } from './serving.ts';

/** Prose has 4 to 5, indented code 8; a longer text is not worth tokenizing to see that it does not fit. */
const CHARACTERS_PER_TOKEN_MAX = 16;

function requirePlausible(characters: number, maxTokens: number, param: string): void {
  const charactersMax = maxTokens * CHARACTERS_PER_TOKEN_MAX;
  if (characters <= charactersMax) return;
  throw badRequest(
    `The prompt has ${characters} characters, but at most ${charactersMax} can fit in ${maxTokens} tokens`,
    param,
  );
}

export async function encodeText(
  { model }: Serving,
  encoder: RequestEncoder,
  text: string,
  addSpecial: boolean,
): Promise<number[]> {
  requirePlausible(text.length, model.maxTokens, 'prompt');
  return await encoder.encode({ text, addSpecial, guarded: false });
}

export interface Conversation {
  messages: { role: string; content: string }[];
  addGenerationPrompt: boolean;
  variables: Record<string, string | number | boolean>;
}

/** A conversation as the model's template writes it; special tokens in what the client sent stay ordinary text. */
export async function encodeChat(
  { template, tokenizer, model }: Serving,
  encoder: RequestEncoder,
  conversation: Conversation,
): Promise<number[]> {
  if (template === null) throw badRequest('This model has no chat template; use /v1/completions', 'messages');
  const characters = conversation.messages.reduce((sum, { content }) => sum + content.length, 0);
  requirePlausible(characters, model.maxTokens, 'messages');
  const { addGenerationPrompt } = conversation;
  const messages = conversation.messages.map(({ role, content }) => ({
    role,
    content: tokenizer.defuse(content),
  }));
  const variables = Object.fromEntries(
    Object.entries(conversation.variables).map(([name, value]) => [
      name,
      typeof value === 'string' ? tokenizer.defuse(value) : value,
    ]),
  );
  const text = template.render(messages, { addGenerationPrompt, variables });
  return await encoder.encode({ text, addSpecial: false, guarded: true });
}
