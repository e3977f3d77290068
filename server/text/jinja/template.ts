import { parse as parseTokens, tokenize } from '@huggingface/jinja';
import { filterNamed } from './filters.ts';
import { globals } from './globals.ts';
import { run } from './interpreter.ts';
import type { Node } from './nodes.ts';
import { Scope } from './scope.ts';
import { withTestArguments } from './test-arguments.ts';
import { testNamed } from './tests.ts';
import { fromJson, TemplateError } from './values.ts';

/**
 * A chat template with Python's meaning. The library parses it. Its own interpreter differs from Jinja without a word:
 * strip() ignores its characters, names that one round of a loop sets live on in the next, none and true are
 * written as JSON has them, a break takes the text of its round away.
 */
export class Template {
  readonly #nodes: Node[];

  /** Throws TemplateError where the source is no template, or uses a filter or test that there is not. */
  constructor(source: string) {
    this.#nodes = parse(source.replace(/\r\n?/g, '\n'));
    for (const node of nodesIn(this.#nodes)) requireKnown(node);
  }

  render(variables: Record<string, unknown>, now: () => Date = () => new Date()): string {
    const given = Object.entries(variables).map(([name, value]) => [name, fromJson(value)] as const);
    const out: string[] = [];
    run(this.#nodes, new Scope(null, new Map([...globals(now), ...given])), out);
    return out.join('');
  }
}

function parse(source: string): Node[] {
  try {
    const tokens = tokenize(source, { lstrip_blocks: true, trim_blocks: true });
    return parseTokens(withTestArguments(tokens)).body as unknown as Node[];
  } catch (cause) {
    throw new TemplateError(cause instanceof Error ? cause.message : String(cause), { cause });
  }
}

function* nodesIn(value: unknown): Generator<Node> {
  if (Array.isArray(value)) for (const item of value) yield* nodesIn(item);
  else if (value instanceof Map) yield* nodesIn([...value].flat());
  else if (typeof value === 'object' && value !== null) {
    yield value as Node;
    yield* nodesIn(Object.values(value));
  }
}

function requireKnown(node: Node): void {
  if (node.type === 'TestExpression') testNamed(node.test.value);
  if (node.type !== 'FilterExpression' && node.type !== 'FilterStatement') return;
  const name =
    node.filter.type === 'Identifier' ? node.filter.value : (node.filter.callee as { value?: unknown }).value;
  filterNamed(String(name));
}
