const GAP = '   ';

/** Columns as kubectl prints them: left-aligned, three spaces between, nothing after the last one. */
export function table(headers: readonly string[], rows: readonly (readonly string[])[]): string {
  const lines = [headers, ...rows].map((row) => row.map(shown));
  const widths = headers.map((_, column) => Math.max(...lines.map((line) => widthOf(line[column] ?? ''))));
  return lines
    .map((line) => line.map((cell, column) => cell + ' '.repeat((widths[column] ?? 0) - widthOf(cell))))
    .map((line) => `${line.join(GAP).trimEnd()}\n`)
    .join('');
}

/** `Name:   value` lines, as `kubectl describe` prints them; those without a value are left out. */
export function facts(pairs: readonly (readonly [string, string | null])[]): string {
  const told = pairs.filter((pair): pair is [string, string] => pair[1] !== null && pair[1] !== '');
  const width = Math.max(...told.map(([name]) => name.length)) + 1;
  return told.map(([name, value]) => `${`${name}:`.padEnd(width)}  ${shown(value)}\n`).join('');
}

/** Text of objects goes to a terminal: control characters must not. */
function shown(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  const clean = text.replace(/[\u0000-\u001f\u007f-\u009f]+/g, ' ');
  return clean === '' ? '-' : clean;
}

function widthOf(text: string): number {
  return [...text].length;
}
