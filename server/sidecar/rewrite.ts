import type { AskedFor } from '../engine/loader.ts';
import type { LoraInfo } from '../openai/lease.ts';
import { fieldsOf, withFields } from './json-fields.ts';

const NEWLINE = 0x0a;
const EVENT = 'data: {';
/** Of an event that ends a choice, or has none and tells the usage. In a text all quotes are escaped: these are fields. */
const ENDS_CHOICE = /"finish_reason":\s*"|"stop_reason":\s*"|"choices":\s*\[\]/;
const USAGE = /"completion_tokens":\s*(\d+)/;
/** In SGLang's words the weights that made an answer, or from where to where each did; of adapters it knows nothing there. */
const TELLS_VERSION = '"weight_version';
const VERSIONS = /"weight_version":\s*"(?:[^"\\]|\\.)*"|"weight_versions":\s*\[[^\]]*\]/g;
const VERSION = /"((?:weight_)?version)":\s*"(?:[^"\\]|\\.)*"/g;

/** What an engine's answer says otherwise than the one that the client gets. */
export interface Rewriting {
  /** What the engine was asked for, and what the client asked for. */
  asked: AskedFor;
  model: string;
  /** Null: the base. */
  lora: LoraInfo;
}

/** Of one revision from the first token to the last: the engine moves nobody to another. */
function provenance(lora: LoraInfo): Record<string, unknown> {
  if (lora === null) return { lora };
  const { revision, step } = lora;
  return { lora: { ...lora, spans: [{ from: 0, revision, step }] }, weight_version: revision };
}

/** The weights of an adapter are those of its revision. */
function versioned(text: string, lora: LoraInfo): string {
  if (lora === null || !text.includes(TELLS_VERSION)) return text;
  return text.replace(VERSIONS, (told) => told.replace(VERSION, `"$1":"${lora.revision}"`));
}

/** Of JSON that came at once. What is no object, or names no model, keeps all but the version of its weights. */
export function rewriteWhole(answer: Buffer, { asked, model, lora }: Rewriting): Buffer {
  const isTold = answer.includes(TELLS_VERSION);
  const bytes = isTold ? Buffer.from(versioned(answer.toString('latin1'), lora), 'latin1') : answer;
  try {
    const field = fieldsOf(bytes).find(({ name }) => name === 'model');
    const named = field && JSON.parse(bytes.toString('utf8', field.valueBegin, field.end));
    return named === asked.model ? withFields(bytes, [], { model, ...provenance(lora) }) : bytes;
  } catch {
    return bytes;
  }
}

/** A refusal in the engine's words, which name the model as the engine knows it. */
export function rewriteRefusal(bytes: Buffer, { asked, model, lora }: Rewriting): Buffer {
  if (lora === null) return bytes;
  const name = asked.lora_path ?? asked.model;
  return Buffer.from(bytes.toString('utf8').replaceAll(name, JSON.stringify(model).slice(1, -1)));
}

export function tokensIn(text: string): number | null {
  const found = USAGE.exec(text)?.[1];
  return found === undefined ? null : Number(found);
}

/**
 * Server-sent events as they come, each as soon as its line is whole: the model's name is the client's, and events that
 * end a choice or tell the usage say which revision made the tokens.
 */
export class EventRewriter {
  /** As the answer says it; known at its end. */
  generatedTokens = 0;
  /** As writers of JSON write it. */
  readonly #asked: [tight: string, spaced: string];
  readonly #name: string;
  readonly #tail: string;
  readonly #lora: LoraInfo;
  #rest: Buffer[] = [];

  constructor({ asked, model, lora }: Rewriting) {
    const name = JSON.stringify(asked.model);
    this.#asked = [`"model":${name}`, `"model": ${name}`];
    this.#name = `"model":${JSON.stringify(model)}`;
    this.#tail = JSON.stringify(provenance(lora)).slice(1);
    this.#lora = lora;
  }

  /** The lines that are whole now. */
  rewrite(chunk: Buffer): string {
    const end = chunk.lastIndexOf(NEWLINE) + 1;
    if (end === 0) {
      this.#rest.push(chunk);
      return '';
    }
    const lines = chunk.subarray(0, end);
    const whole = this.#rest.length === 0 ? lines : Buffer.concat([...this.#rest, lines]);
    this.#rest = end === chunk.length ? [] : [chunk.subarray(end)];
    return this.#rewritten(whole.toString('utf8'));
  }

  /** What came after the last line. */
  rest(): string {
    return Buffer.concat(this.#rest).toString('utf8');
  }

  #rewritten(text: string): string {
    return text
      .split('\n')
      .map((line) => (line.startsWith(EVENT) ? this.#event(line) : line))
      .join('\n');
  }

  #event(line: string): string {
    const named = versioned(this.#renamed(line), this.#lora);
    if (!ENDS_CHOICE.test(named)) return named;
    this.generatedTokens = Math.max(this.generatedTokens, tokensIn(named) ?? 0);
    const end = named.lastIndexOf('}');
    return `${named.slice(0, end)},${this.#tail}${named.slice(end + 1)}`;
  }

  #renamed(line: string): string {
    for (const asked of this.#asked) {
      const at = line.indexOf(asked);
      if (at >= 0) return line.slice(0, at) + this.#name + line.slice(at + asked.length);
    }
    return line;
  }
}
