import { z } from 'zod';
import { AdapterName } from '../contract/adapter-api.ts';
import { LorikeetError } from '../contract/errors.ts';
import { plain, quoted } from '../contract/strict-json.ts';
import { badRequest, OpenAiError } from '../openai/errors.ts';
import { parseBody } from '../openai/schemas.ts';

const text = z.string().nullish();
const LoadBody = z.object({ lora_name: text, lora_path: text, load_inplace: z.boolean().nullish() });
const UnloadBody = z.object({ lora_name: text });

export function readLoad(body: unknown): { name: string; path: string; inPlace: boolean } {
  const { lora_name: name, lora_path: path, load_inplace } = parseBody(LoadBody, body);
  if (!name || !path) throw wrong("Both 'lora_name' and 'lora_path' must be provided.");
  return { name, path, inPlace: load_inplace === true };
}

/** The name to unload. */
export function readUnload(body: unknown): string {
  const { lora_name: name } = parseBody(UnloadBody, body);
  if (!name) throw wrong("'lora_name' needs to be provided to unload a LoRA adapter.");
  return name;
}

function wrong(message: string): OpenAiError {
  return new OpenAiError('invalid_user_input', message);
}

export function alreadyLoaded(name: string): OpenAiError {
  return wrong(
    `The lora adapter '${name}' has already been loaded. If you want to load the adapter in place, set 'load_inplace' to True.`,
  );
}

export function notLoaded(name: string): OpenAiError {
  return new OpenAiError('adapter_not_found', `The lora adapter '${plain(name)}' cannot be found.`);
}

export function requireName(name: string): void {
  if (AdapterName.safeParse(name).success) return;
  throw wrong(
    `Expected a name of A-Z a-z 0-9 . _ - : / and at the end @<number> for lora_name but received ${quoted(name)}`,
  );
}

/** Which adapter is refused, and why, is for its caller to read; vLLM has one status for that. */
export function refuse(error: unknown): never {
  if (error instanceof LorikeetError && error.status < 500) throw badRequest(error.message, error.field);
  throw error;
}
