import { itemsOf, numeric, repr, str, TemplateError, type Value } from './values.ts';

/** Python's `%` on a string, for the conversions that texts use. */
export function printf(text: string, args: Value[]): string {
  let next = 0;
  const written = text.replace(
    /%(?:%|(-?)(0?)(\d{0,3})(?:\.(\d{1,2}))?([sdifr])|.?)/gs,
    (whole, left, zero, width, digits, kind) => {
      if (whole === '%%') return '%';
      const value = args[next++];
      if (kind === undefined || value === undefined)
        throw new TemplateError(
          kind === undefined ? `unsupported format ${whole}` : 'not enough arguments for format string',
        );
      const converted = convert(value, kind, digits);
      return left === '-'
        ? converted.padEnd(Number(width))
        : converted.padStart(Number(width), zero === '0' ? '0' : ' ');
    },
  );
  if (next < args.length) throw new TemplateError('not all arguments converted during string formatting');
  return written;
}

/** What stands right of `%`: a tuple is several arguments. */
export function printfArguments(value: Value): Value[] {
  return Array.isArray(value) ? [value] : (itemsOf(value) ?? [value]);
}

function convert(value: Value, kind: string, digits: string | undefined): string {
  if (kind === 's' || kind === 'r') {
    const text = kind === 's' ? str(value) : repr(value);
    return digits === undefined ? text : text.slice(0, Number(digits));
  }
  const number = numeric(value);
  if (number === null) throw new TemplateError(`%${kind} format: a real number is required`);
  return kind === 'f' ? number.toFixed(Number(digits ?? 6)) : String(Math.trunc(number));
}
