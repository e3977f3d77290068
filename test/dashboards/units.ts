/** Numbers as Grafana writes them, in the units that our panels have. */
export function inUnit(value: number, unit: string): string {
  if (!Number.isFinite(value)) return '–';
  switch (unit) {
    case 's':
      return seconds(value);
    case 'percentunit':
      return `${rounded(value * 100)} %`;
    case 'bytes':
      return scaled(value, 1024, ['B', 'KiB', 'MiB', 'GiB', 'TiB']);
    case 'Bps':
      return scaled(value, 1000, ['B/s', 'kB/s', 'MB/s', 'GB/s']);
    case 'hex':
      return value.toString(16).toUpperCase();
    case 'bool_yes_no':
      return value === 0 ? 'No' : 'Yes';
    case 'reqps':
      return `${rounded(value)} req/s`;
    default:
      return unit.startsWith('suffix:') ? `${rounded(value)}${unit.slice('suffix:'.length)}` : rounded(value);
  }
}

function seconds(value: number): string {
  const size = Math.abs(value);
  if (size === 0) return '0 s';
  if (size < 1e-3) return `${rounded(value * 1e6)} µs`;
  if (size < 1) return `${rounded(value * 1e3)} ms`;
  if (size < 60) return `${rounded(value)} s`;
  if (size < 7200) return `${rounded(value / 60)} min`;
  return `${rounded(value / 3600)} h`;
}

function scaled(value: number, base: number, units: string[]): string {
  let scaledValue = value;
  let at = 0;
  while (Math.abs(scaledValue) >= base && at < units.length - 1) {
    scaledValue /= base;
    at += 1;
  }
  return `${rounded(scaledValue)} ${units[at]}`;
}

/** Three digits. */
function rounded(value: number): string {
  return String(Math.abs(value) >= 100 ? Math.round(value) : Number(value.toPrecision(3)));
}
