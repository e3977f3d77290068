/** Bytes the Kubernetes way: 512Mi, 1.5G, 1073741824. */
export const SIZE_PATTERN = /^([0-9]+(\.[0-9]+)?)(k|M|G|T|Ki|Mi|Gi|Ti)?$/;

const BYTES_OF_SUFFIX: Record<string, number> = {
  '': 1,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
};

/** Whole bytes, rounded up. Null: the text is no size, none of at least one byte, or beyond what a number counts. */
export function sizeBytes(text: string): number | null {
  const [, number, , suffix = ''] = SIZE_PATTERN.exec(text) ?? [];
  const bytes = Math.ceil(Number(number) * (BYTES_OF_SUFFIX[suffix] ?? Number.NaN));
  return Number.isSafeInteger(bytes) && bytes >= 1 ? bytes : null;
}
