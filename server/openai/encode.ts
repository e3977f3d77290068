import { badRequest } from './errors.ts';
import type { Serving } from './serving.ts';

/** No family that we serve packs more characters into a token on average; longer texts are not worth tokenizing. */
const CHARACTERS_PER_TOKEN_MAX = 64;

function requirePlausible(characters: number, maxTokens: number, param: string): void {
  const charactersMax = maxTokens * CHARACTERS_PER_TOKEN_MAX;
  if (characters <= charactersMax) return;
  throw badRequest(
    `The prompt has ${characters} characters, but at most ${charactersMax} can fit in ${maxTokens} tokens`,
    param,
  );
}

export function encodeText(serving: Serving, text: string, addSpecial: boolean): number[] {
  requirePlausible(text.length, serving.model.maxTokens, 'prompt');
  return serving.tokenizer.encode(text, { addSpecial });
}

export interface Conversation {
  messages: { role: string; content: string }[];
  addGenerationPrompt: boolean;
  variables: Record<string, string | number | boolean>;
}

/** A conversation as the model's template writes it; special tokens in what the client sent stay ordinary text. */
export function encodeChat(serving: Serving, conversation: Conversation): number[] {
  const { template, tokenizer, model } = serving;
  if (template === null) throw badRequest('This model has no chat template; use /v1/completions', 'messages');
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
  const characters = messages.reduce((sum, { content }) => sum + content.length, 0);
  requirePlausible(characters, model.maxTokens, 'messages');
  const text = template.render(messages, { addGenerationPrompt, variables });
  return tokenizer.encodeGuarded(text, { addSpecial: false });
}
