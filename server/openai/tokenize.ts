import type { FastifyReply } from 'fastify';
import { clientGone } from './client.ts';
import { encodeChat, encodeText } from './encode.ts';
import { badRequest } from './errors.ts';
import { requireToken } from './plan.ts';
import { DetokenizeBody, parseBody, TokenizeBody } from './schemas.ts';
import type { Serving } from './serving.ts';
import { requireSupported } from './unsupported.ts';

export async function tokenize(serving: Serving, requestBody: unknown, reply: FastifyReply): Promise<object> {
  requireSupported(requestBody, 'tokenize');
  const body = parseBody(TokenizeBody, requestBody);
  if (body.model !== null) serving.adapters.resolve(body.model);
  const encoder = serving.encoder.forRequest(reply.request.ip, clientGone(reply));
  const tokens =
    'messages' in body
      ? await encodeChat(serving, encoder, {
          messages: body.messages,
          addGenerationPrompt: body.add_generation_prompt,
          variables: body.chat_template_kwargs,
        })
      : await encodeText(serving, encoder, body.prompt, body.add_special_tokens);
  return {
    count: tokens.length,
    max_model_len: serving.model.maxTokens,
    tokens,
    token_strs: body.return_token_strs ? tokens.map((id) => serving.tokenizer.tokenName(id)) : null,
  };
}

export function detokenize(serving: Serving, requestBody: unknown): object {
  const body = parseBody(DetokenizeBody, requestBody);
  if (body.model !== null) serving.adapters.resolve(body.model);
  if (body.tokens.length > serving.model.maxTokens) {
    throw badRequest(
      `Expected at most ${serving.model.maxTokens} tokens but received ${body.tokens.length}`,
      'tokens',
    );
  }
  for (const id of body.tokens) requireToken(id, serving.model, 'tokens');
  return { prompt: serving.tokenizer.decode(body.tokens, { skipSpecial: false }) };
}
