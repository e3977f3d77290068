import { compareText, Float, itemsOf, reprFloat, TemplateError, typeName, type Value } from './values.ts';

export interface JsonLayout {
  ensureAscii: boolean;
  /** What one level is indented by, or null for one line. */
  indent: string | null;
  separators: { item: string; key: string };
  sortKeys: boolean;
}

/** As Python's `json.dumps` writes it. */
export function dumps(value: Value, layout: JsonLayout, depth = 0): string {
  if (value === null || typeof value === 'boolean') return String(value);
  if (typeof value === 'number') return String(value);
  if (value instanceof Float) return reprFloat(value.value);
  if (typeof value === 'string') return dumpText(value, layout);
  const inside = (item: Value) => dumps(item, layout, depth + 1);
  if (value instanceof Map) {
    const entries = layout.sortKeys ? [...value].sort(([a], [b]) => compareText(a, b)) : [...value];
    const parts = entries.map(([key, item]) => dumpText(key, layout) + layout.separators.key + inside(item));
    return enclose('{', parts, '}', layout, depth);
  }
  const items = itemsOf(value);
  if (items !== null) return enclose('[', items.map(inside), ']', layout, depth);
  throw new TemplateError(`Object of type ${typeName(value)} is not JSON serializable`);
}

function enclose(open: string, parts: string[], close: string, layout: JsonLayout, depth: number): string {
  const { indent, separators } = layout;
  if (indent === null || parts.length === 0) return open + parts.join(separators.item) + close;
  const line = `\n${indent.repeat(depth + 1)}`;
  return `${open}${line}${parts.join(separators.item + line)}\n${indent.repeat(depth)}${close}`;
}

function dumpText(text: string, { ensureAscii }: JsonLayout): string {
  const json = JSON.stringify(text);
  if (!ensureAscii) return json;
  return json.replace(/[\x7f-\uffff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`);
}
