import { z } from 'zod';

/** The name of an object, as DNS subdomains go. */
export const ObjectName = z.string().min(1).max(253);
/** Lower-case hex. */
export const Sha256 = z
  .string()
  .max(64)
  .regex(/^[0-9a-f]{64}$/);
