import { z } from 'zod';
import { SIZE_PATTERN, sizeBytes } from '../../server/contract/size.ts';

const DURATION_PATTERN = /^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$/;
const DURATION_PART = /([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)/g;

/** Bytes the Kubernetes way: 512Mi, 1.5G, 1073741824. */
export const Quantity = z.union([z.number().int().positive(), z.string().max(32).regex(SIZE_PATTERN)]);
export type Quantity = z.infer<typeof Quantity>;

/** A span of time the Go way: 500ms, 60s, 1h30m. */
export const Duration = z.string().max(32).regex(DURATION_PATTERN);

/** A number of pods, or a share of them: 2, 50%. */
export const Replicas = z.union([
  z.number().int().nonnegative(),
  z
    .string()
    .max(4)
    .regex(/^(100|[1-9]?[0-9])%$/),
]);
export type Replicas = z.infer<typeof Replicas>;

const MS_OF_UNIT: Record<string, number> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 };

/** Whole bytes, rounded up; throws RangeError for what the schema would not have let in. */
export function quantityBytes(quantity: Quantity): number {
  const bytes = sizeBytes(String(quantity));
  if (bytes !== null) return bytes;
  throw new RangeError(`Expected a quantity of at least one byte such as 512Mi but received ${quantity}`);
}

/** Throws RangeError for what the schema would not have let in. */
export function durationMs(duration: string): number {
  if (!DURATION_PATTERN.test(duration)) {
    throw new RangeError(`Expected a duration such as 60s but received ${duration}`);
  }
  return [...duration.matchAll(DURATION_PART)].reduce(
    (sum, [, number, unit]) => sum + Number(number) * (MS_OF_UNIT[unit ?? ''] ?? Number.NaN),
    0,
  );
}

/** How many of `pods`; of a share the next whole one. May be more than there are. */
export function replicasOf(replicas: Replicas, pods: number): number {
  if (typeof replicas === 'number') return replicas;
  return Math.ceil((Number.parseInt(replicas, 10) * pods) / 100);
}
